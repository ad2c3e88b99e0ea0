/** The answers of the usage API as this component's own values; nothing of an answer is trusted. */

import type { Meter } from "./formats.js";
import type { Span } from "./ranges.js";

/** Runs of one tool in one hour or day. `start` is a time in milliseconds since 1970. */
export interface Run {
  readonly start: number;
  readonly server: string;
  readonly tool: string;
  readonly runs: number;
  readonly tokens: number;
}

/** What Stripe has accepted for one meter in one hour or day, and what still waits. */
export interface Amount {
  readonly start: number;
  readonly meter: string;
  readonly accepted: number;
  readonly waiting: number;
  /** What is in neither, since it was reported to Stripe in another way. */
  readonly shadow: number;
  /** How much of `waiting` waits for what. */
  readonly why: ReadonlyMap<string, number>;
  /** How much of what is refused was refused for which reason. */
  readonly reasons: ReadonlyMap<string, number>;
}

/**
 * An answer of `GET /v1/usage`. The runs are the user's. The amounts are the account's, which is
 * shared if `scope` is "account"; they are null if the token may not see them.
 */
export interface Usage {
  readonly userId: string;
  readonly accountId: string;
  readonly scope: string;
  /** What the figures are of: whole days or hours, in UTC. */
  readonly span: Span;
  readonly by: string;
  readonly asOf: number;
  /** By the meter's name in `amounts` and in limits; none of a service without a file of plans. */
  readonly meters: ReadonlyMap<string, Meter>;
  readonly recorded: readonly Run[];
  readonly amounts: readonly Amount[] | null;
}

/** `used` and `remaining` are null if the token may not see the account's amounts. */
export interface Limit {
  readonly name: string;
  readonly meter: string;
  readonly pattern: Pattern;
  readonly limit: number;
  readonly used: number | null;
  readonly remaining: number | null;
  readonly hard: boolean;
  readonly periodEnd: number;
}

/** Servers and tools; `*` stands for any text. */
export interface Pattern {
  readonly server: string;
  readonly tool: string;
}

export interface RateLimit {
  readonly server: string;
  readonly perMinute: number;
}

/** An answer of `GET /v1/entitlements/{user_id}`; without a plan nothing may be run. */
export interface Entitlements {
  readonly userId: string;
  readonly accountId: string;
  readonly plan: string | null;
  readonly status: string | null;
  readonly seats: number | null;
  readonly denied: readonly Pattern[];
  readonly limits: readonly Limit[];
  readonly rateLimits: readonly RateLimit[];
  readonly period: Span;
  readonly asOf: number;
}

/** An answer that is not what the usage API answers, such as a proxy's. */
export class UnreadableAnswerError extends Error {}

/**
 * Read an answer of `GET /v1/usage`.
 *
 * @throws UnreadableAnswerError
 */
export function readUsage(json: unknown): Usage {
  const answer = new Fields(json);
  const usage = {
    userId: answer.text("user_id"),
    accountId: answer.text("account_id"),
    scope: answer.text("scope"),
    span: spanOf(answer.time("from"), answer.time("to")),
    by: answer.text("by"),
    asOf: answer.time("as_of"),
    meters: answer.map("meters", (meters, name) => readMeter(meters.object(name))),
    recorded: answer.list("recorded", (each) => ({
      start: each.time("start"),
      server: each.text("server_id"),
      tool: each.text("tool_name"),
      runs: each.count("runs"),
      tokens: each.optionalCount("tokens") ?? 0,
    })),
    amounts: answer.has("amounts")
      ? answer.list("amounts", (each) => ({
          start: each.time("start"),
          meter: each.text("meter"),
          accepted: each.count("accepted"),
          waiting: each.count("waiting"),
          shadow: each.optionalCount("shadow") ?? 0,
          why: each.map("why", (why, reason) => why.count(reason)),
          reasons: each.map("reasons", (reasons, reason) => reasons.count(reason)),
        }))
      : null,
  };
  requireWithin(usage.span, [...usage.recorded, ...(usage.amounts ?? [])]);
  requireExactSum(usage.recorded.map(({ runs, tokens }) => runs + tokens));
  requireExactSum((usage.amounts ?? []).map(({ accepted, waiting, shadow }) => accepted + waiting + shadow));
  return usage;
}

/**
 * Read an answer of `GET /v1/entitlements/{user_id}`.
 *
 * @throws UnreadableAnswerError
 */
export function readEntitlements(json: unknown): Entitlements {
  const answer = new Fields(json);
  const period = answer.object("period");
  return {
    userId: answer.text("user_id"),
    accountId: answer.text("account_id"),
    plan: answer.optionalText("plan_name") ?? answer.optionalText("plan"),
    status: answer.optionalText("status"),
    seats: answer.optionalCount("seats"),
    denied: answer.list("denied", readPattern),
    limits: answer.list("limits", (each) => ({
      name: each.text("name"),
      meter: each.text("meter"),
      pattern: readPattern(each),
      limit: each.count("limit"),
      used: each.optionalCount("used"),
      remaining: each.optionalCount("remaining"),
      hard: each.flag("hard"),
      periodEnd: each.time("period_end"),
    })),
    rateLimits: answer.list("rate_limits", (each) => ({
      server: each.text("server_id"),
      perMinute: each.count("per_minute"),
    })),
    period: spanOf(period.time("start"), period.time("end")),
    asOf: answer.time("as_of"),
  };
}

function readPattern(fields: Fields): Pattern {
  return { server: fields.text("server_id"), tool: fields.text("tool_name") };
}

function readMeter(fields: Fields): Meter {
  const unit = fields.optionalText("unit");
  return { name: fields.text("display_name"), ...(unit === null ? {} : { unit }) };
}

function spanOf(from: number, to: number): Span {
  if (from >= to) throw new UnreadableAnswerError("a span ends before it begins");
  return { from, to };
}

/** What lies outside would be in one sum and not in another. */
function requireWithin({ from, to }: Span, entries: readonly { readonly start: number }[]): void {
  if (entries.some(({ start }) => start < from || start >= to)) {
    throw new UnreadableAnswerError("a start is outside of the answer's span");
  }
}

/** Beyond 2^53 a sum has digits that nobody counted. */
function requireExactSum(values: readonly number[]): void {
  const sum = values.reduce((before, value) => before + value, 0);
  if (!Number.isSafeInteger(sum)) throw new UnreadableAnswerError("a sum is too large to be exact");
}

// RFC 3339; `Date.parse` takes a time without an offset for one of the reader's own zone.
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

/** An answer of the usage API has fewer. */
const MAX_ENTRIES = 100_000;

/**
 * A JSON object whose fields are read by type. What is absent or null may be so; what is of another
 * type never counts as absent. Errors name the field, never its value.
 */
class Fields {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(json: unknown, name = "the answer") {
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw new UnreadableAnswerError(`${name} is not an object`);
    }
    this.#values = json as Record<string, unknown>;
  }

  has(name: string): boolean {
    return this.#value(name) !== null;
  }

  text(name: string): string {
    return this.#required(name, this.optionalText(name));
  }

  optionalText(name: string): string | null {
    return this.#typed(name, (value) => typeof value === "string");
  }

  /** A number of things; what JavaScript cannot hold exactly is none. */
  count(name: string): number {
    return this.#required(name, this.optionalCount(name));
  }

  optionalCount(name: string): number | null {
    return this.#typed(name, (value): value is number => Number.isSafeInteger(value) && (value as number) >= 0);
  }

  flag(name: string): boolean {
    return this.#required(name, this.#typed(name, (value) => typeof value === "boolean"));
  }

  time(name: string): number {
    const text = this.text(name);
    const time = MOMENT.test(text) ? Date.parse(text) : Number.NaN;
    return this.#required(name, Number.isNaN(time) ? null : time);
  }

  object(name: string): Fields {
    return new Fields(this.#value(name), name);
  }

  /** Read every field of an object; there are none if it is absent. */
  map<T>(name: string, read: (fields: Fields, key: string) => T): ReadonlyMap<string, T> {
    const fields = new Fields(this.#value(name) ?? {}, name);
    return new Map(Object.keys(fields.#values).map((key) => [key, read(fields, key)]));
  }

  list<T>(name: string, read: (each: Fields) => T): T[] {
    const isList = (value: unknown): value is unknown[] => Array.isArray(value) && value.length <= MAX_ENTRIES;
    const list = this.#required(name, this.#typed(name, isList));
    return list.map((each) => read(new Fields(each, name)));
  }

  #value(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? this.#values[name] : null;
  }

  #typed<T>(name: string, isTyped: (value: unknown) => value is T): T | null {
    const value = this.#value(name);
    if (value === null || isTyped(value)) return value;
    throw new UnreadableAnswerError(`${name} is of another type`);
  }

  #required<T>(name: string, value: T | null): T {
    if (value === null) throw new UnreadableAnswerError(`${name} is missing`);
    return value;
  }
}
