/** The answers of the usage API as this component's own values; nothing of an answer is trusted. */

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
  /** How much of `waiting` waits for what. */
  readonly why: ReadonlyMap<string, number>;
}

/**
 * An answer of `GET /v1/usage`. The runs are the user's. The amounts are the account's, which is
 * shared if `scope` is "account"; they are null if the token may not see them.
 */
export interface Usage {
  readonly userId: string;
  readonly scope: string;
  readonly asOf: number;
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
  return {
    userId: answer.text("user_id"),
    scope: answer.text("scope"),
    asOf: answer.time("as_of"),
    recorded: answer.list("recorded", (each) => ({
      start: each.time("start"),
      server: each.text("server_id"),
      tool: each.text("tool_name"),
      runs: each.number("runs"),
      tokens: each.optionalNumber("tokens") ?? 0,
    })),
    amounts: answer.has("amounts")
      ? answer.list("amounts", (each) => ({
          start: each.time("start"),
          meter: each.text("meter"),
          accepted: each.number("accepted"),
          waiting: each.number("waiting"),
          why: each.numbers("why"),
        }))
      : null,
  };
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
    seats: answer.optionalNumber("seats"),
    denied: answer.list("denied", readPattern),
    limits: answer.list("limits", (each) => ({
      name: each.text("name"),
      meter: each.text("meter"),
      pattern: readPattern(each),
      limit: each.number("limit"),
      used: each.optionalNumber("used"),
      remaining: each.optionalNumber("remaining"),
      hard: each.flag("hard"),
      periodEnd: each.time("period_end"),
    })),
    rateLimits: answer.list("rate_limits", (each) => ({
      server: each.text("server_id"),
      perMinute: each.number("per_minute"),
    })),
    period: { from: period.time("start"), to: period.time("end") },
    asOf: answer.time("as_of"),
  };
}

function readPattern(fields: Fields): Pattern {
  return { server: fields.text("server_id"), tool: fields.text("tool_name") };
}

/** A JSON object whose fields are read by type. Errors name the field, never its value. */
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
    return this.#typed(name, this.optionalText(name));
  }

  optionalText(name: string): string | null {
    const value = this.#value(name);
    return typeof value === "string" ? value : null;
  }

  number(name: string): number {
    return this.#typed(name, this.optionalNumber(name));
  }

  optionalNumber(name: string): number | null {
    const value = this.#value(name);
    return typeof value === "number" && Number.isFinite(value) ? value : null;
  }

  flag(name: string): boolean {
    const value = this.#value(name);
    return this.#typed(name, typeof value === "boolean" ? value : null);
  }

  time(name: string): number {
    const value = Date.parse(this.text(name));
    return this.#typed(name, Number.isNaN(value) ? null : value);
  }

  object(name: string): Fields {
    return new Fields(this.#value(name), name);
  }

  numbers(name: string): ReadonlyMap<string, number> {
    const entries = new Fields(this.#value(name) ?? {}, name);
    return new Map(Object.keys(entries.#values).map((key) => [key, entries.number(key)]));
  }

  list<T>(name: string, read: (each: Fields) => T): T[] {
    const value = this.#value(name);
    const list = this.#typed(name, Array.isArray(value) ? (value as unknown[]) : null);
    return list.map((each) => read(new Fields(each, name)));
  }

  #value(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? this.#values[name] : null;
  }

  #typed<T>(name: string, value: T | null): T {
    if (value === null) throw new UnreadableAnswerError(`${name} is missing or of another type`);
    return value;
  }
}
