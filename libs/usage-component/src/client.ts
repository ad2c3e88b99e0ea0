/** Reads the usage API. Every expected outcome is a value. */

import { hoursFit, monthOf, spanOf, type Range, type Span, type Step } from "./ranges.js";
import type { FailureReason } from "./texts.js";
import { readEntitlements, readUsage, UnreadableAnswerError, type Entitlements, type Usage } from "./wire.js";

export type Failure = { readonly kind: "failed"; readonly reason: FailureReason };
export type Answer<T> = { readonly kind: "read"; readonly value: T } | { readonly kind: "token_refused" } | Failure;

/** One user's access to the API. */
export interface Access {
  /** The API's base address, absolute. */
  readonly base: string;
  readonly token: string;
  /** The token's user: an answer about another one is not shown. */
  readonly user: string;
  /** The account whose usage is asked for, in place of the user's own. */
  readonly account: string | null;
}

/** What was read for one range and step. */
export interface Data {
  readonly usage: Usage;
  /** Null where the service has no plans. */
  readonly entitlements: Entitlements | null;
  readonly span: Span;
  readonly step: Step;
}

const TIMEOUT_MS = 20_000;

/** Read usage and entitlements, at the same time unless the range depends on the period. */
export async function readData(
  access: Access,
  choice: { readonly range: Range; readonly step: Step },
  now: number,
  signal: AbortSignal,
): Promise<Answer<Data>> {
  const { range } = choice;
  const step = hoursFit(range) ? choice.step : "day";
  const entitling = getEntitlements(access, signal);
  const first = range === "period" ? await entitling : null;
  if (first !== null && first.kind !== "read") return first;
  const period = first?.value?.period;
  const span = spanOf(range, step, now, period ?? monthOf(now));
  const [usage, entitlements] = await Promise.all([getUsage(access, span, step, signal), entitling]);
  if (usage.kind !== "read") return usage;
  if (entitlements.kind !== "read") return entitlements;
  return { kind: "read", value: { usage: usage.value, entitlements: entitlements.value, span, step } };
}

function getUsage(access: Access, { from, to }: Span, by: Step, signal: AbortSignal): Promise<Answer<Usage>> {
  const query = new URLSearchParams({ from: iso(from), to: iso(to), by });
  if (access.account !== null) query.set("account", access.account);
  return get(access, `/v1/usage?${query}`, readUsage, signal);
}

async function getEntitlements(access: Access, signal: AbortSignal): Promise<Answer<Entitlements | null>> {
  const path = `/v1/entitlements/${encodeURIComponent(access.user)}`;
  const answer = await get(access, path, readEntitlements, signal);
  return answer.kind === "failed" && answer.reason === "absent" ? { kind: "read", value: null } : answer;
}

async function get<T extends { readonly userId: string }>(
  { base, token, user }: Access,
  path: string,
  read: (json: unknown) => T,
  signal: AbortSignal,
): Promise<Answer<T>> {
  try {
    const response = await fetch(base + path, {
      headers: { Authorization: `Bearer ${token}`, Accept: "application/json" },
      // No cookies; no copy in a cache that the next user of this browser shares; and the token
      // goes to no other address.
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    if (!response.ok) return refusal(response.status);
    const value = read(await response.json());
    return value.userId === user ? { kind: "read", value } : failed("unreadable");
  } catch (error) {
    // What `fetch` throws (no connection, no CORS, a redirect, too late) says nothing that helps a reader.
    const unreadable = error instanceof UnreadableAnswerError || error instanceof SyntaxError;
    return failed(unreadable ? "unreadable" : "network");
  }
}

function refusal(status: number): Answer<never> {
  if (status === 401) return { kind: "token_refused" };
  if (status === 403) return failed("forbidden");
  if (status === 404) return failed("absent");
  if (status === 413) return failed("too_much");
  if (status === 429) return failed("busy");
  return failed(status >= 500 ? "unavailable" : "unreadable");
}

function failed(reason: FailureReason): Failure {
  return { kind: "failed", reason };
}

function iso(time: number): string {
  return new Date(time).toISOString();
}
