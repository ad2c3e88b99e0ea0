/**
 * Decisions: what an answer of the usage API says about one tool run.
 *
 * `libs/publisher/tests/entitlement_cases.json` holds the cases that this module and its twin in
 * Python decide alike.
 */

export type Why =
  | "allowed" // the plan lets it run
  | "denied" // the plan does not have this tool
  | "limit_reached" // a hard limit of the plan is reached
  | "unknown" // the user has no plan, and none is given to unknown users
  | "no_answer"; // no answer within the budget: the feature's own choice holds

/** What a feature does without an answer: run or not. */
export type Otherwise = "open" | "closed";

/** Look at `allowed`: the object itself is always true. */
export interface Decision {
  readonly allowed: boolean;
  readonly why: Why;
  /** The name of the limit that is reached. */
  readonly limit: string | undefined;
  /** The lowest rate limit of the server, for the host's own limiter. */
  readonly perMinute: number | undefined;
  /** Up to when usage was counted. */
  readonly asOf: Date | undefined;
  /** The answer is older than the API wanted. */
  readonly stale: boolean;
}

interface Tools {
  readonly server_id: string;
  readonly tool_name: string;
}

interface Limit extends Tools {
  readonly name: string;
  readonly hard: boolean;
  readonly remaining: number;
}

interface RateLimit {
  readonly server_id: string;
  readonly per_minute: number;
}

/** `GET /v1/entitlements/{user_id}`, as far as it is needed here. */
export interface Entitlement {
  readonly user_id: string;
  readonly plan: string | null;
  readonly denied: readonly Tools[];
  readonly limits: readonly Limit[];
  readonly rate_limits: readonly RateLimit[];
  readonly as_of: string;
}

/** Read an answer about a user; undefined if it is malformed or about somebody else. */
export function readEntitlement(body: string, userId: string): Entitlement | undefined {
  try {
    const read: unknown = JSON.parse(body);
    return isEntitlement(read) && read.user_id === userId ? read : undefined;
  } catch {
    return undefined;
  }
}

/** Decide about one run; without an entitlement, `otherwise` holds. */
export function decide(
  entitlement: Entitlement | undefined,
  serverId: string,
  toolName: string,
  otherwise: Otherwise,
  stale = false,
): Decision {
  if (entitlement === undefined) {
    const none = { limit: undefined, perMinute: undefined, asOf: undefined, stale: false };
    return { allowed: otherwise === "open", why: "no_answer", ...none };
  }
  const rates = entitlement.rate_limits.filter((rate) => matches(rate.server_id, serverId));
  const [why, limit] = reason(entitlement, serverId, toolName);
  return {
    allowed: why === "allowed",
    why,
    limit,
    perMinute: rates.length === 0 ? undefined : Math.min(...rates.map((rate) => rate.per_minute)),
    asOf: new Date(entitlement.as_of),
    stale,
  };
}

function reason(entitlement: Entitlement, serverId: string, toolName: string): [Why, string | undefined] {
  const covers = (tools: Tools) =>
    matches(tools.server_id, serverId) && matches(tools.tool_name, toolName);
  if (entitlement.plan === null) return ["unknown", undefined];
  if (entitlement.denied.some(covers)) return ["denied", undefined];
  const reached = entitlement.limits.find((limit) => limit.hard && limit.remaining <= 0 && covers(limit));
  return reached === undefined ? ["allowed", undefined] : ["limit_reached", reached.name];
}

/** Return whether all of `text` fits; no pattern takes more than pattern x text steps. */
export function matches(pattern: string, text: string): boolean {
  const [first = "", ...rest] = pattern.split("*");
  const last = rest.pop();
  if (last === undefined) return pattern === text;
  if (text.length < first.length + last.length || !text.startsWith(first)) return false;
  const end = text.length - last.length;
  let at = first.length;
  for (const part of rest) {
    at = text.indexOf(part, at);
    if (at < 0) return false;
    at += part.length;
    if (at > end) return false;
  }
  return text.endsWith(last);
}

function isEntitlement(value: unknown): value is Entitlement {
  return (
    isObject(value) &&
    typeof value["user_id"] === "string" &&
    (value["plan"] === null || typeof value["plan"] === "string") &&
    isListOf(value["denied"], areTools) &&
    isListOf(value["limits"], isLimit) &&
    isListOf(value["rate_limits"], isRateLimit) &&
    isMoment(value["as_of"])
  );
}

function areTools(value: unknown): value is Tools {
  return isObject(value) && typeof value["server_id"] === "string" && typeof value["tool_name"] === "string";
}

function isLimit(value: unknown): value is Limit {
  return (
    areTools(value) &&
    isObject(value) &&
    typeof value["name"] === "string" &&
    typeof value["hard"] === "boolean" &&
    Number.isFinite(value["remaining"])
  );
}

function isRateLimit(value: unknown): value is RateLimit {
  return isObject(value) && typeof value["server_id"] === "string" && Number.isInteger(value["per_minute"]);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isListOf<T>(value: unknown, isMember: (member: unknown) => member is T): value is T[] {
  return Array.isArray(value) && value.every(isMember);
}

const RFC3339 =
  /^(\d{4}-\d\d-\d\d)T([01]\d|2[0-3])(:[0-5]\d){2}(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/;

function isMoment(value: unknown): boolean {
  const day = typeof value === "string" ? RFC3339.exec(value)?.[1] : undefined;
  const midnight = new Date(`${day}T00:00:00Z`); // of another day, if the month has no such day
  return day !== undefined && !Number.isNaN(midnight.getTime()) && midnight.toISOString().startsWith(day);
}
