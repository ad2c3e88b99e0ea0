// Generated from libs/contracts/schemas by `npm run types`.

export type JsonValue = string | number | boolean | null | JsonValue[] | {[key: string]: JsonValue};

/**
 * One tool run. ``token_count`` counts what the run consumed, where its tool knows it.
 */
export interface ToolExecutedV1 {
  /**
   * The publisher's own, without effect on billing. If it can't be read, it is left out.
   */
  metadata?: {
    [k: string]: JsonValue;
  } | null;
  /**
   * What started the run: a direct call, the hub, or a job.
   */
  origin: "direct" | "hub" | "job";
  /**
   * The server that the tool belongs to.
   */
  server_id: string;
  /**
   * How the run ended. By default only runs that succeeded are charged.
   */
  status: "succeeded" | "failed";
  /**
   * How many tokens the run consumed in total. Null or absent: unknown, and none are charged.
   */
  token_count?: number | null;
  /**
   * The tool's name at its server.
   */
  tool_name: string;
  /**
   * The user who is charged.
   */
  user_id: string;
}
export interface ToolExecutedV1Event {
  data: ToolExecutedV1;
  /**
   * A media type whose subtype is `json` or ends in `+json`; null: JSON, too.
   */
  datacontenttype?: string | null;
  /**
   * Made once and the same on every retry. An id is charged once, for ever.
   */
  id: string;
  /**
   * The name of the service that published the event, always the same.
   */
  source: string;
  specversion: "1.0";
  /**
   * When it happened, RFC 3339 with `Z` or an offset: of a tool run, when it ended.
   */
  time: string;
  /**
   * Trace context of what this event tells of, as W3C Trace Context writes it: 00-<trace id>-<span id>-<flags>. Anything else reads as absent.
   */
  traceparent?: string | null;
  type: "tool.executed.v1";
}
/**
 * One tool run, with the model that it used and its tokens by kind, its details.
 *
 * All that is charged is what version 1 has. ``token_count`` stays the total that is charged: it
 * is stated by the publisher and never computed from the tokens by kind. No rule between them is
 * enforced: some providers count cached tokens among the input (OpenAI, Gemini), others beside it
 * (Anthropic).
 */
export interface ToolExecutedV2 {
  /**
   * How many tokens the provider read from its cache. Null or absent: unknown.
   */
  cached_tokens?: number | null;
  /**
   * How many tokens the model read, as its provider counts them. Null or absent: unknown.
   */
  input_tokens?: number | null;
  /**
   * The publisher's own, without effect on billing. If it can't be read, it is left out.
   */
  metadata?: {
    [k: string]: JsonValue;
  } | null;
  /**
   * The model that the run used, as its provider names it. Null or absent: none, or unknown.
   */
  model?: string | null;
  /**
   * What started the run: a direct call, the hub, or a job.
   */
  origin: "direct" | "hub" | "job";
  /**
   * How many tokens the model wrote, as its provider counts them. Null or absent: unknown.
   */
  output_tokens?: number | null;
  /**
   * The server that the tool belongs to.
   */
  server_id: string;
  /**
   * How the run ended. By default only runs that succeeded are charged.
   */
  status: "succeeded" | "failed";
  /**
   * How many tokens the run consumed in total. Null or absent: unknown, and none are charged.
   */
  token_count?: number | null;
  /**
   * The tool's name at its server.
   */
  tool_name: string;
  /**
   * The user who is charged.
   */
  user_id: string;
}
export interface ToolExecutedV2Event {
  data: ToolExecutedV2;
  /**
   * A media type whose subtype is `json` or ends in `+json`; null: JSON, too.
   */
  datacontenttype?: string | null;
  /**
   * Made once and the same on every retry. An id is charged once, for ever.
   */
  id: string;
  /**
   * The name of the service that published the event, always the same.
   */
  source: string;
  specversion: "1.0";
  /**
   * When it happened, RFC 3339 with `Z` or an offset: of a tool run, when it ended.
   */
  time: string;
  /**
   * Trace context of what this event tells of, as W3C Trace Context writes it: 00-<trace id>-<span id>-<flags>. Anything else reads as absent.
   */
  traceparent?: string | null;
  type: "tool.executed.v2";
}
/**
 * From ``since`` on the account pays for the user's runs, until a later assignment begins.
 *
 * A user who was never assigned is their own account, and so is one who is assigned to their own
 * id. Of two assignments from the same time on, the one of the higher ``revision`` holds.
 */
export interface UserAssignedV1 {
  /**
   * The account that pays: an organisation's, or the user's own id.
   */
  account_id: string;
  /**
   * Rises with every assignment, past those that a lost database had made.
   */
  revision: number;
  /**
   * From when on: runs that ended before it stay with the account before.
   */
  since: string;
  /**
   * The user, as tool runs name them.
   */
  user_id: string;
}
export interface UserAssignedV1Event {
  data: UserAssignedV1;
  /**
   * A media type whose subtype is `json` or ends in `+json`; null: JSON, too.
   */
  datacontenttype?: string | null;
  /**
   * Made once and the same on every retry. An id is charged once, for ever.
   */
  id: string;
  /**
   * The name of the service that published the event, always the same.
   */
  source: string;
  specversion: "1.0";
  /**
   * When it happened, RFC 3339 with `Z` or an offset: of a tool run, when it ended.
   */
  time: string;
  /**
   * Trace context of what this event tells of, as W3C Trace Context writes it: 00-<trace id>-<span id>-<flags>. Anything else reads as absent.
   */
  traceparent?: string | null;
  type: "user.assigned.v1";
}
/**
 * One user. Address and name are personal and stay out of every repr.
 */
export interface UserCreatedV1 {
  /**
   * The address that the user's customer at Stripe gets.
   */
  email: string;
  /**
   * The name that the user's customer at Stripe gets.
   */
  name?: string | null;
  /**
   * The user, as tool runs name him.
   */
  user_id: string;
}
export interface UserCreatedV1Event {
  data: UserCreatedV1;
  /**
   * A media type whose subtype is `json` or ends in `+json`; null: JSON, too.
   */
  datacontenttype?: string | null;
  /**
   * Made once and the same on every retry. An id is charged once, for ever.
   */
  id: string;
  /**
   * The name of the service that published the event, always the same.
   */
  source: string;
  specversion: "1.0";
  /**
   * When it happened, RFC 3339 with `Z` or an offset: of a tool run, when it ended.
   */
  time: string;
  /**
   * Trace context of what this event tells of, as W3C Trace Context writes it: 00-<trace id>-<span id>-<flags>. Anything else reads as absent.
   */
  traceparent?: string | null;
  type: "user.created.v1";
}
/**
 * One user, perhaps without an address, perhaps with a customer that exists at Stripe already.
 *
 * Address and name are personal and stay out of every repr.
 */
export interface UserCreatedV2 {
  /**
   * The address that a new customer at Stripe gets. Null or absent: it gets none.
   */
  email?: string | null;
  /**
   * The name that a new customer at Stripe gets.
   */
  name?: string | null;
  /**
   * The customer that the user has at Stripe already: it is charged, and no other is created.
   * Null or absent: a customer is created.
   */
  stripe_customer_id?: string | null;
  /**
   * The user, as tool runs name him.
   */
  user_id: string;
}
export interface UserCreatedV2Event {
  data: UserCreatedV2;
  /**
   * A media type whose subtype is `json` or ends in `+json`; null: JSON, too.
   */
  datacontenttype?: string | null;
  /**
   * Made once and the same on every retry. An id is charged once, for ever.
   */
  id: string;
  /**
   * The name of the service that published the event, always the same.
   */
  source: string;
  specversion: "1.0";
  /**
   * When it happened, RFC 3339 with `Z` or an offset: of a tool run, when it ended.
   */
  time: string;
  /**
   * Trace context of what this event tells of, as W3C Trace Context writes it: 00-<trace id>-<span id>-<flags>. Anything else reads as absent.
   */
  traceparent?: string | null;
  type: "user.created.v2";
}
/**
 * What is new about a user. Address and name are personal and stay out of every repr.
 *
 * For each field the event with the latest ``time`` counts, in whatever order they arrive.
 */
export interface UserUpdatedV1 {
  /**
   * The address that the user's customer at Stripe gets. Null or absent: it stays.
   */
  email?: string | null;
  /**
   * The name that the user's customer at Stripe gets; empty: none. Null or absent: it stays.
   */
  name?: string | null;
  /**
   * The user, as tool runs name him.
   */
  user_id: string;
}
export interface UserUpdatedV1Event {
  data: UserUpdatedV1;
  /**
   * A media type whose subtype is `json` or ends in `+json`; null: JSON, too.
   */
  datacontenttype?: string | null;
  /**
   * Made once and the same on every retry. An id is charged once, for ever.
   */
  id: string;
  /**
   * The name of the service that published the event, always the same.
   */
  source: string;
  specversion: "1.0";
  /**
   * When it happened, RFC 3339 with `Z` or an offset: of a tool run, when it ended.
   */
  time: string;
  /**
   * Trace context of what this event tells of, as W3C Trace Context writes it: 00-<trace id>-<span id>-<flags>. Anything else reads as absent.
   */
  traceparent?: string | null;
  type: "user.updated.v1";
}
