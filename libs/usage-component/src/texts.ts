/** Every text that is shown. A page replaces what it wants: `element.texts = { title: "Verbrauch" }`. */

/** A text by plural category of the language, such as "one" and "other"; `{n}` is the number. */
export type Plural = Readonly<{ other: string } & Partial<Record<Intl.LDMLPluralRule, string>>>;

export interface Texts {
  title: string;
  noPlan: string;
  /** `{plan}` is its name. */
  plan: string;
  seats: Plural;
  /** By Stripe's word for a subscription's status; others are shown as they come. */
  status: Readonly<Record<string, string>>;
  /** `{time}` */
  asOf: string;
  refresh: string;

  loading: string;
  /** `{runs}`, `{from}`, `{to}`: spoken once the figures are shown. */
  loaded: string;
  empty: string;
  expired: string;
  retry: string;
  failed: Readonly<Record<FailureReason, string>>;

  range: string;
  ranges: Readonly<Record<"7d" | "30d" | "90d" | "period", string>>;
  step: string;
  steps: Readonly<Record<"day" | "hour", string>>;
  split: string;
  splits: Readonly<Record<"none" | "server" | "tool", string>>;

  limits: string;
  noLimits: string;
  /** By the limit's name in the plan; others are shown by that name. */
  limitNames: Readonly<Record<string, string>>;
  /** `{used}`, `{limit}` */
  limitUsed: string;
  /** `{remaining}` */
  limitRemaining: string;
  limitReached: string;
  limitExceeded: string;
  limitNear: string;
  /** `{time}` */
  limitUntil: string;
  limitHard: string;
  limitSoft: string;
  /** `{patterns}` */
  limitFor: string;
  /** `{limit}`: where the token shows nothing of what is used. */
  limitHidden: string;
  /** Under the limits of an account that other users share. */
  limitsShared: string;
  rateLimits: string;
  perMinute: Plural;
  allServers: string;
  denied: string;
  everything: string;

  runs: string;
  runCount: Plural;
  tokenCount: Plural;
  chart: string;
  chartHint: string;
  /** Stands where a bar's figures are shown once one is picked. */
  chartPrompt: string;
  others: string;
  total: string;
  server: string;
  tool: string;
  tokens: string;
  share: string;
  /** The headings and names of the table under the chart, per day and per hour. */
  figuresBy: Readonly<Record<"day" | "hour", string>>;
  timeColumn: Readonly<Record<"day" | "hour", string>>;

  amounts: string;
  amountsNote: string;
  /** Of an account that other users share. */
  amountsShared: string;
  noAmounts: string;
  amountsHidden: string;
  meter: string;
  accepted: string;
  waiting: string;
  /** Of an amount that is neither: it was reported to Stripe in another way. */
  shadow: string;
  /** By the reason's name in the answer; others are shown by that name. */
  why: Readonly<Record<string, string>>;
  /** Of what is refused, by the reason's name in the answer; others are shown by that name. */
  reasons: Readonly<Record<string, string>>;

  downloadRuns: string;
  downloadAmounts: string;
}

export type FailureReason = "network" | "absent" | "too_much" | "forbidden" | "busy" | "unavailable" | "unreadable" | "token";

export const ENGLISH: Texts = {
  title: "Your usage",
  noPlan: "No plan",
  plan: "{plan} plan",
  seats: { one: "{n} seat", other: "{n} seats" },
  status: {
    active: "active",
    trialing: "trial",
    past_due: "payment overdue",
    unpaid: "unpaid",
    canceled: "canceled",
    incomplete: "not paid yet",
    incomplete_expired: "expired",
    paused: "paused",
  },
  asOf: "As of {time}",
  refresh: "Refresh",

  loading: "Loading usage…",
  loaded: "{runs} from {from} to {to}.",
  empty: "No runs in this range.",
  expired: "Access to these figures has expired, or was not given.",
  retry: "Try again",
  failed: {
    network: "The usage service cannot be reached.",
    absent: "There is no usage service at the address that this page names.",
    too_much: "This range has too many figures. Choose a shorter one.",
    forbidden: "These figures are not yours to see.",
    busy: "Too many requests. Try again in a minute.",
    unavailable: "The usage service has no answer at the moment.",
    unreadable: "The usage service gave an answer that cannot be read.",
    token: "This page could not get access to the figures.",
  },

  range: "Range",
  ranges: { "7d": "7 days", "30d": "30 days", "90d": "90 days", period: "This period" },
  step: "Show",
  steps: { day: "per day", hour: "per hour" },
  split: "Split",
  splits: { none: "all runs", server: "by server", tool: "by tool" },

  limits: "Limits",
  noLimits: "This plan has no limits.",
  limitNames: { runs: "Runs", tokens: "Tokens" },
  limitUsed: "{used} of {limit} used",
  limitRemaining: "{remaining} left",
  limitReached: "Limit reached",
  limitExceeded: "Over the limit",
  limitNear: "Nearly used up",
  limitUntil: "Starts anew on {time}.",
  limitHard: "Further runs are refused at the limit.",
  limitSoft: "Runs go on above it.",
  limitFor: "For {patterns}.",
  limitHidden: "at most {limit}",
  limitsShared: "All users of your account share them.",
  rateLimits: "At most",
  perMinute: { one: "{n} run a minute", other: "{n} runs a minute" },
  allServers: "each server",
  denied: "Not in this plan",
  everything: "all servers and tools",

  runs: "Runs",
  runCount: { one: "{n} run", other: "{n} runs" },
  tokenCount: { one: "{n} token", other: "{n} tokens" },
  chart: "Chart of runs",
  chartPrompt: "Point at a bar to read its figures.",
  chartHint: "The arrow keys read it; the tables below have the same figures.",
  others: "Others",
  total: "Total",
  server: "Server",
  tool: "Tool",
  tokens: "Tokens",
  share: "Share",
  figuresBy: { day: "Figures by day", hour: "Figures by hour" },
  timeColumn: { day: "Day (UTC)", hour: "Hour (UTC)" },

  amounts: "Billing",
  amountsNote: "What you are billed for, in this range.",
  amountsShared: "What the account is billed for, for all its users, in this range.",
  noAmounts: "Nothing to bill in this range.",
  amountsHidden: "Only the account's administrators see what it is billed for.",
  meter: "Meter",
  accepted: "Accepted by Stripe",
  waiting: "Waiting",
  shadow: "reported by the way before this one",
  why: {
    not_sent: "not sent yet",
    not_answered: "sent, not answered yet",
    refused: "refused by Stripe",
    no_customer: "no customer at Stripe yet",
  },
  reasons: {
    no_such_customer: "for a customer that no longer exists at Stripe",
    timestamp_too_old: "sent more than 35 days late",
    timestamp_in_future: "dated in the future",
    refused_by_stripe: "for another reason",
  },

  downloadRuns: "Download runs (CSV)",
  downloadAmounts: "Download billing (CSV)",
};

/** Put values for `{names}` into a text. */
export function fill(text: string, values: Readonly<Record<string, string>>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
}

/** Return the text of a name, or the name itself in words, if there is none. */
export function textOf(texts: Readonly<Record<string, string>>, name: string): string {
  return Object.hasOwn(texts, name) ? (texts[name] ?? name) : name.replaceAll("_", " ");
}
