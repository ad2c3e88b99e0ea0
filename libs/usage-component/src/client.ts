/** Reads the usage API. Every expected outcome is a value. */

import { endOf, hoursFit, monthOf, spanOf, startOf, type Range, type Span, type Step } from "./ranges.js";
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

/** The service answers about no longer span. */
const MAX_SPAN_MS = 400 * 86_400_000;

interface Choice {
  readonly range: Range;
  readonly step: Step;
}

/** Read usage and entitlements of a range that ends now, by the browser's clock or the service's if that is ahead. */
export async function readData(
  access: Access,
  choice: Choice,
  now: number,
  signal: AbortSignal,
): Promise<Answer<Data>> {
  const answer = await readAt(now, access, choice, signal);
  if (answer.kind !== "read") return answer;
  const { usage, span } = answer.value;
  return usage.asOf < span.to ? answer : readAt(usage.asOf, access, choice, signal);
}

/** Read both at the same time, unless the range depends on the period. */
async function readAt(now: number, access: Access, choice: Choice, signal: AbortSignal): Promise<Answer<Data>> {
  const { range } = choice;
  const step = hoursFit(range) ? choice.step : "day";
  const entitling = getEntitlements(access, signal);
  const first = range === "period" ? await entitling : null;
  if (first !== null && first.kind !== "read") return first;
  const period = first?.value?.period;
  const span = spanOf(range, step, now, period ?? monthOf(now));
  if (span.to - span.from > MAX_SPAN_MS) return failed("too_much");
  const [usage, entitlements] = await Promise.all([getUsage(access, span, step, signal), entitling]);
  if (usage.kind !== "read") return usage;
  if (entitlements.kind !== "read") return entitlements;
  return { kind: "read", value: { usage: usage.value, entitlements: entitlements.value, span, step } };
}

async function getUsage(access: Access, span: Span, by: Step, signal: AbortSignal): Promise<Answer<Usage>> {
  const query = new URLSearchParams({ from: iso(span.from), to: iso(span.to), by });
  if (access.account !== null) query.set("account", access.account);
  const answer = await get(access, `/v1/usage?${query}`, readUsage, signal);
  return answer.kind === "read" && !isAbout(answer.value, access, span, by) ? failed("unreadable") : answer;
}

/** Tell whether the answer is the one that was asked for, and not one that a cache had. */
function isAbout({ accountId, span, by }: Usage, { account }: Access, asked: Span, step: Step): boolean {
  const ours = account === null || accountId === account.toLowerCase();
  return ours && by === step && span.from === startOf(step, asked.from) && span.to === endOf(step, asked.to);
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
