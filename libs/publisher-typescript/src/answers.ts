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
  /** The key may not publish the named events; its scope may be corrected. The others may be sent. */
  | { readonly step: "hold_back"; readonly forbidden: readonly number[] }
  /** Something in the batch is refused, and the answer does not name it. */
  | { readonly step: "narrow" }
  /** Nothing is known to be wrong with the batch: the same again, not before `leastMs`. */
  | { readonly step: "repeat"; readonly leastMs: number };

const MAX_RETRY_AFTER_SECONDS = 300; // longer ones are mistakes, and would outlast the events

/** Decide what follows after a batch of `count` events got this answer. */
export function decide(answer: Answer, count: number): Next {
  switch (answer.status) {
    case 202: // of a gateway, if it has not the number of events
      return parsed(answer.body)?.accepted === count ? { step: "confirmed" } : repeat(answer);
    case 400:
    case 403:
    case 413:
    case 422: {
      const refused = refusedEvents(answer.body, count);
      if (refused.size === 0) return { step: "narrow" };
      if (answer.status === 403) return { step: "hold_back", forbidden: [...refused.keys()] };
      return { step: "set_aside", refused };
    }
    default:
      return repeat(answer);
  }
}

/** Return whether the answer is one that time alone does not change. */
export function isMisconfiguration({ status }: Answer): boolean {
  return status !== undefined && status < 500 && status !== 408 && status !== 429;
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

function repeat({ retryAfter }: Answer): Next {
  const seconds = retryAfter && /^\d+$/.test(retryAfter) ? Number(retryAfter) : 0;
  return { step: "repeat", leastMs: 1000 * Math.min(seconds, MAX_RETRY_AFTER_SECONDS) };
}

/** Return the body's JSON; undefined for a gateway's page. */
function parsed(body: string | undefined): { accepted?: unknown; errors?: unknown } | undefined {
  try {
    return JSON.parse(body ?? "") ?? undefined;
  } catch {
    return undefined;
  }
}

/** Read `errors` of a problem document: `[{"index": 3, "field": "data.origin", "rule": "…"}]`. */
function refusedEvents(body: string | undefined, count: number): Map<number, BrokenRule[]> {
  const refused = new Map<number, BrokenRule[]>();
  const errors = parsed(body)?.errors;
  for (const error of Array.isArray(errors) ? errors : []) {
    const index: unknown = error?.index;
    if (!Number.isInteger(index) || (index as number) < 0 || (index as number) >= count) continue;
    const rules = refused.get(index as number) ?? [];
    rules.push({ field: String(error.field ?? ""), rule: String(error.rule ?? "") });
    refused.set(index as number, rules);
  }
  return refused;
}
