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
