/** What compiles, and what must not: checked by the compiler, never run. */

import type {
  Publisher,
  ToolExecutedV1,
  ToolExecutedV1Event,
  ToolExecutedV2,
  ToolExecutedV2Event,
  UserCreatedV1,
  UserCreatedV1Event,
  UserCreatedV2,
} from "@nexus-metering/publisher";

type Written = [ToolExecutedV1Event, ToolExecutedV2Event, UserCreatedV1Event];

export function compiles(publisher: Publisher, run: ToolExecutedV1): Written {
  const { user_id } = run;
  publisher.toolExecuted({ ...run, token_count: null, metadata: { model: "m", parts: [1, null] } });
  publisher.toolExecuted({ ...run, model: "m", input_tokens: 1, output_tokens: null });
  publisher.userCreated({ user_id });
  publisher.userCreated({ user_id, email: null, stripe_customer_id: "cus_1" });
  publisher.userUpdated({ user_id, name: "" });
  const envelope = {
    specversion: "1.0",
    id: user_id,
    source: "web",
    time: "2026-01-01T00:00:00Z",
    traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  } as const;
  return [
    { ...envelope, type: "tool.executed.v1", data: run },
    { ...envelope, type: "tool.executed.v2", data: { ...run, model: "m" } },
    { ...envelope, type: "user.created.v1", traceparent: null, data: { user_id, email: "a@b" } },
  ];
}

export function doesNotCompile(publisher: Publisher, run: ToolExecutedV1): void {
  // @ts-expect-error: no such origin
  publisher.toolExecuted({ ...run, origin: "web" });
  // @ts-expect-error: no such field
  publisher.toolExecuted({ ...run, tokens: 5 });
  // @ts-expect-error: a number has quotes
  publisher.toolExecuted({ ...run, token_count: "5" });
  // @ts-expect-error: a function is no JSON
  publisher.toolExecuted({ ...run, metadata: { call: () => undefined } });
  // @ts-expect-error: the user is missing
  publisher.userCreated({ email: "a@b" });
  // @ts-expect-error: a change links no customer
  publisher.userUpdated({ user_id: run.user_id, stripe_customer_id: "cus_1" });
}

/** A host may have either version's data, and need not know which. */
export function compilesForEither(
  publisher: Publisher,
  run: ToolExecutedV1 | ToolExecutedV2,
  user: UserCreatedV1 | UserCreatedV2,
): void {
  publisher.toolExecuted(run);
  publisher.userCreated(user);
}
