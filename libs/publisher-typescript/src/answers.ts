/** Decisions: what follows from an answer of the events API. */

import type { BrokenRule } from "./losses.js";

/** What came back; without a status, there was no answer within the timeout, and `cause` says why. */
export interface Answer {
  readonly status: number | undefined;
  readonly retryAfter?: string | null;
  readonly body?: string;
  readonly cause?: string;
}

export type Next =
  | { readonly step: "confirmed" }
  /** The named events are invalid; the others may be sent again at once. */
  | { readonly step: "set_aside"; readonly refused: ReadonlyMap<number, readonly BrokenRule[]> }
  /** Something in the batch is refused, and the answer does not name it. */
  | { readonly step: "narrow" }
  /** Nothing is known to be wrong with the batch: the same again, not before `leastMs`. */
  | { readonly step: "repeat"; readonly leastMs: number };

const MAX_RETRY_AFTER_SECONDS = 300; // longer ones are mistakes, and would outlast the events

/** Decide what follows after a batch of `count` events got this answer. */
export function decide(answer: Answer, count: number): Next {
  switch (answer.status) {
    case 202:
      return { step: "confirmed" };
    case 400:
    case 403:
    case 413:
    case 422: {
      const refused = refusedEvents(answer.body ?? "", count);
      return refused.size > 0 ? { step: "set_aside", refused } : { step: "narrow" };
    }
    default:
      return { step: "repeat", leastMs: retryAfterMs(answer.retryAfter) };
  }
}

/** Return whether the answer is one that time alone does not change. */
export function isMisconfiguration({ status }: Answer): boolean {
  return status !== undefined && status !== 202 && status < 500 && status !== 408 && status !== 429;
}

/**
 * Return the wait before the attempt that follows `failures` failures in a row.
 *
 * Half of it is random, so that clients that failed together do not come back together.
 */
export function backoff(failures: number, firstMs: number, longestMs: number, random: number): number {
  const limit = Math.min(longestMs, firstMs * 2 ** (failures - 1));
  return limit / 2 + (limit / 2) * random;
}

function retryAfterMs(header: string | null | undefined): number {
  const seconds = header && /^\d+$/.test(header) ? Number(header) : 0;
  return 1000 * Math.min(seconds, MAX_RETRY_AFTER_SECONDS);
}

/** Read `errors` of a problem document: `[{"index": 3, "field": "data.origin", "rule": "…"}]`. */
function refusedEvents(body: string, count: number): Map<number, BrokenRule[]> {
  const refused = new Map<number, BrokenRule[]>();
  let errors: unknown;
  try {
    errors = JSON.parse(body)?.errors;
  } catch {
    return refused; // a gateway's page
  }
  for (const error of Array.isArray(errors) ? errors : []) {
    const index: unknown = error?.index;
    if (!Number.isInteger(index) || (index as number) < 0 || (index as number) >= count) continue;
    const rules = refused.get(index as number) ?? [];
    rules.push({ field: String(error.field ?? ""), rule: String(error.rule ?? "") });
    refused.set(index as number, rules);
  }
  return refused;
}
