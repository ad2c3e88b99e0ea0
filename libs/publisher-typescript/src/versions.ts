/** Decisions: the type of an event, with the lowest version that has all fields of its data. */

import type {
  ToolExecutedV1,
  ToolExecutedV1Event,
  ToolExecutedV2,
  ToolExecutedV2Event,
  UserCreatedV1Event,
  UserCreatedV2,
  UserCreatedV2Event,
  UserUpdatedV1,
  UserUpdatedV1Event,
} from "./events.js";

/** What happened. The data is that of the newest version, which has all fields of the older ones. */
export type Occurrence =
  | { readonly name: "tool.executed"; readonly data: ToolExecutedV2 }
  | { readonly name: "user.created"; readonly data: UserCreatedV2 }
  | { readonly name: "user.updated"; readonly data: UserUpdatedV1 };

export type EventType = (
  | ToolExecutedV1Event
  | ToolExecutedV2Event
  | UserCreatedV1Event
  | UserCreatedV2Event
  | UserUpdatedV1Event
)["type"];

// A record, so that the compiler names a field that is missing here.
const ADDED_BY_TOOL_EXECUTED_V2: Record<Exclude<keyof ToolExecutedV2, keyof ToolExecutedV1>, true> = {
  model: true,
  input_tokens: true,
  output_tokens: true,
  cached_tokens: true,
};
const TOOL_EXECUTED_V2_FIELDS = Object.keys(ADDED_BY_TOOL_EXECUTED_V2) as (keyof ToolExecutedV2)[];

/** Return the type with the lowest version that will do: a metering of an older release refuses others. */
export function typeOf({ name, data }: Occurrence): EventType {
  switch (name) {
    case "tool.executed":
      return TOOL_EXECUTED_V2_FIELDS.some((field) => isPresent(data[field]))
        ? "tool.executed.v2"
        : "tool.executed.v1";
    case "user.created":
      return isPresent(data.email) && !isPresent(data.stripe_customer_id)
        ? "user.created.v1"
        : "user.created.v2";
    case "user.updated":
      return "user.updated.v1";
  }
}

/** Contracts say that null means absent. */
function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}
