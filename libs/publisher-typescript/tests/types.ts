/** What compiles, and what must not: checked by the compiler, never run. */

import type { Publisher, ToolExecutedV1, ToolExecutedV1Event, UserCreatedV1Event } from "@nexus-metering/publisher";

export function compiles(publisher: Publisher, run: ToolExecutedV1): [ToolExecutedV1Event, UserCreatedV1Event] {
  const { user_id } = run;
  publisher.toolExecuted({ ...run, token_count: null, metadata: { model: "m", parts: [1, null] } });
  const envelope = {
    specversion: "1.0",
    id: user_id,
    source: "web",
    time: "2026-01-01T00:00:00Z",
    traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  } as const;
  return [
    { ...envelope, type: "tool.executed.v1", data: run },
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
  // @ts-expect-error: the e-mail address is missing
  publisher.userCreated({ user_id: run.user_id });
}
