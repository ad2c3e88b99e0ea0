import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  createPublisher,
  type LostEvent,
  type Publisher,
  type PublisherOptions,
  type ToolExecutedV1,
  type ToolExecutedV2,
} from "@nexus-metering/publisher";

import { neverAnswer, Receiver, refuse, reset, status } from "./receiver.js";

const RUN: ToolExecutedV1 = {
  user_id: randomUUID(),
  server_id: "weather",
  tool_name: "forecast",
  origin: "direct",
  status: "succeeded",
};

let receiver: Receiver;
let publisher: Publisher;
let lost: LostEvent[];

function create(options: Partial<PublisherOptions> = {}): Publisher {
  publisher = createPublisher({
    url: receiver.url,
    key: "a-key",
    source: "tests",
    onLost: (events) => lost.push(...events),
    firstRetryMs: 4,
    longestRetryMs: 40,
    ...options,
  });
  return publisher;
}

beforeEach(async () => {
  lost = [];
  receiver = await new Receiver().start();
});

afterEach(async () => {
  await publisher.close(0);
  await receiver.stop();
});

test("a tool run is sent with its id, its time and its trace, and confirmed", async () => {
  create();
  const before = Date.now();

  const receipt = publisher.toolExecuted(RUN, { traceparent: "00-a-b-01" });
  const after = Date.now();

  assert.equal(receipt.state, "in_memory");
  assert.equal(await publisher.flush(), 0);
  const [event] = receiver.batches.flat();
  assert.equal(event?.id, receipt.id);
  assert.equal(event?.type, "tool.executed.v1");
  assert.equal(event?.source, "tests");
  assert.equal(event?.traceparent, "00-a-b-01");
  assert.deepEqual(event?.data, RUN);
  const time = Date.parse(event?.time ?? "");
  assert.ok(before <= time && time <= after);
  const [request] = receiver.requests;
  assert.equal(request?.url, "/v1/events");
  assert.equal(request?.headers.authorization, "Bearer a-key");
  assert.equal(request?.headers["content-type"], "application/cloudevents-batch+json");
  assert.equal(publisher.status().confirmed, 1);
});

const ABSENT_DETAILS = { model: null, input_tokens: undefined, output_tokens: null, cached_tokens: null };

for (const [type, data] of [
  ["tool.executed.v1", RUN],
  ["tool.executed.v1", { ...RUN, ...ABSENT_DETAILS, token_count: 5 }],
  ["tool.executed.v2", { ...RUN, model: "example-large" }],
  ["tool.executed.v2", { ...RUN, ...ABSENT_DETAILS, input_tokens: 0 }],
  ["tool.executed.v2", { ...RUN, output_tokens: 0 }],
  ["tool.executed.v2", { ...RUN, cached_tokens: 0 }],
] as const) {
  test(`a run with ${present(data)} is sent as ${type}`, async () => {
    create();

    publisher.toolExecuted(data as ToolExecutedV2);

    await assertSent(type, data);
  });
}

const { user_id } = RUN;
const email = "a@example.com";

for (const [type, data] of [
  ["user.created.v1", { user_id, email, name: "Ada" }],
  ["user.created.v1", { user_id, email, stripe_customer_id: null }],
  ["user.created.v2", { user_id }],
  ["user.created.v2", { user_id, email: null, name: "Ada" }],
  ["user.created.v2", { user_id, email, stripe_customer_id: "cus_1" }],
  ["user.created.v2", { user_id, stripe_customer_id: "cus_1" }],
] as const) {
  test(`a user with ${present(data)} is sent as ${type}`, async () => {
    create();

    publisher.userCreated(data);

    await assertSent(type, data);
  });
}

test("an empty address or customer is sent to be refused, and not taken as absent", async () => {
  create();

  publisher.userCreated({ user_id, email: "" });
  publisher.userCreated({ user_id, email, stripe_customer_id: "" });
  await publisher.flush();

  const types = receiver.batches.flat().map(({ type }) => type);
  assert.deepEqual(types, ["user.created.v1", "user.created.v2"]);
});

test("a changed user is sent as user.updated.v1", async () => {
  create();

  publisher.userUpdated({ user_id, name: "" });

  await assertSent("user.updated.v1", { user_id, name: "" });
});

/** Wait until something holds, 20 s at most. */
async function until(holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!holds()) {
    assert.ok(performance.now() < deadline, `not in time: ${holds}`);
    await sleep(5);
  }
}

/** Return the names of the fields that are not null. */
function present(data: object): string {
  return Object.entries(data).flatMap(([field, value]) => value == null ? [] : [field]).join(", ");
}

async function assertSent(type: string, data: object): Promise<void> {
  await publisher.flush();
  const [event] = receiver.batches.flat();
  assert.equal(event?.type, type);
  assert.deepEqual(event?.data, JSON.parse(JSON.stringify(data)));
}

test("events of one moment are one request, and never more than 1,000", async () => {
  create();

  for (let count = 0; count < 2_500; count += 1) publisher.toolExecuted(RUN);
  await publisher.flush();

  assert.deepEqual(
    receiver.batches.map((batch) => batch.length),
    [1000, 1000, 500],
  );
});

test("what the host changes after the call is not sent", async () => {
  create();
  const data = { ...RUN, metadata: { step: 1 } };

  publisher.toolExecuted(data);
  data.metadata.step = 2;
  await publisher.flush();

  assert.deepEqual(receiver.batches[0]?.[0]?.data["metadata"], { step: 1 });
});

for (const [name, fault] of Object.entries({
  "500": status(500),
  "a reset connection": reset,
  "no answer in time": neverAnswer,
  "200 of a page that is not the API's": status(200, {}, "<html>"),
  "202 without the number of events": status(202, {}, "<html>"),
  "a redirect": status(302, { location: "/login" }),
  "401": status(401),
})) {
  test(`after ${name} the same bytes are sent again`, async () => {
    create({ requestTimeoutMs: 300 });
    receiver.next(fault, fault);

    const { id } = publisher.toolExecuted(RUN);
    await publisher.flush();

    const [first, second, third] = receiver.batches.map((batch) => batch.map(({ json }) => json));
    assert.deepEqual(second, first);
    assert.deepEqual(third, first);
    assert.deepEqual([...receiver.accepted.keys()], [id]);
    assert.deepEqual(lost, []);
  });
}

for (const code of [429, 503]) {
  test(`${code} with Retry-After: nothing is sent before its end`, async () => {
    create();
    receiver.next(status(code, { "retry-after": "1" }));

    publisher.toolExecuted(RUN);
    await publisher.flush();

    const [first = 0, second = 0] = receiver.times;
    assert.ok(second - first >= 1000, `${second - first} ms`);
    assert.equal(publisher.status().confirmed, 1);
  });
}

test("the events that the API names are reported with their rules, the others are sent again", async () => {
  create();
  receiver.otherwise = (batch, response) => {
    const invalid = batch.some((event) => event.data["tool_name"] === "bad");
    (invalid ? refuse((event) => event.data["tool_name"] === "bad") : receiver.accept)(batch, response);
  };

  const good = [1, 2, 3].map(() => publisher.toolExecuted(RUN).id);
  const bad = publisher.toolExecuted({ ...RUN, tool_name: "bad" }).id;
  good.push(publisher.toolExecuted(RUN).id);
  await publisher.flush();
  await publisher.close();

  assert.deepEqual([...receiver.accepted.keys()].sort(), good.sort());
  assert.equal(receiver.batches.length, 2);
  assert.deepEqual(
    lost.map(({ id, reason, rules }) => ({ id, reason, rules })),
    [{ id: bad, reason: "refused", rules: [{ field: "data.origin", rule: "must be direct, hub or job" }] }],
  );
  assert.equal(JSON.parse(lost[0]?.json ?? "").data.tool_name, "bad");
});

test("an event that the key may not publish waits, and those beside it are sent", async (context) => {
  const warn = context.mock.method(console, "warn", () => undefined);
  create();
  const isUser = (event: { type: string }) => event.type === "user.created.v1";
  receiver.otherwise = (batch, response) => {
    (batch.some(isUser) ? refuse(isUser, 403) : receiver.accept)(batch, response);
  };

  const user = publisher.userCreated({ user_id: randomUUID(), email: "ada@example.com" }).id;
  for (let runs = 0; runs < 3; runs += 1) {
    const run = publisher.toolExecuted(RUN).id;
    await until(() => receiver.accepted.has(run));
    await sleep(20);
  }
  assert.equal(publisher.status().problem, "HTTP 403 for user.created.v1");
  assert.equal(warn.mock.callCount(), 1);
  assert.deepEqual(lost, []);

  receiver.otherwise = receiver.accept; // the key is corrected
  assert.equal(await publisher.flush(), 0);
  assert.ok(receiver.accepted.has(user));
  assert.equal(publisher.status().problem, undefined);
});

test("an event that the key may never publish is lost as expired", async () => {
  create({ maxAgeMs: 50 });
  receiver.otherwise = refuse(() => true, 403);

  const { id } = publisher.toolExecuted(RUN);
  assert.equal(await publisher.flush(), 0);
  await publisher.close();

  assert.deepEqual(lost.map((each) => [each.id, each.reason]), [[id, "expired"]]);
});

for (const path of ["/", "/v1/events", "/v1/events/"]) {
  test(`an address that ends with ${path} is the same address`, async () => {
    create({ url: `${receiver.url}${path}` });

    publisher.toolExecuted(RUN);
    assert.equal(await publisher.flush(), 0);

    assert.deepEqual(receiver.requests.map(({ url }) => url), ["/v1/events"]);
  });
}

for (const code of [400, 403, 413]) {
  test(`an event for which the API answers ${code} without naming it holds up no other`, async () => {
    create();
    receiver.otherwise = (batch, response) => {
      const invalid = batch.some((event) => event.data["tool_name"] === "bad");
      (invalid ? status(code) : receiver.accept)(batch, response);
    };

    const ids = ["a", "b", "bad", "c", "d"].map((tool_name) => {
      return publisher.toolExecuted({ ...RUN, tool_name }).id;
    });
    await until(() => publisher.status().waiting === 1);

    assert.deepEqual([...receiver.accepted.keys()].sort(), ids.filter((id) => id !== ids[2]).sort());
    await publisher.close(0);
    assert.deepEqual(lost.map(({ id, reason }) => ({ id, reason })), [{ id: ids[2], reason: "closed" }]);
  });
}

test("an answer that names events that were not sent is not repeated at once", async () => {
  create({ firstRetryMs: 40 });
  receiver.otherwise = status(400, {}, JSON.stringify({ errors: [{ index: 7 }] }));

  publisher.toolExecuted(RUN);
  await publisher.flush(400);

  assert.ok(receiver.requests.length < 25, `${receiver.requests.length} requests`);
});

test("the API is killed and comes back: each event is accepted", async () => {
  create();
  const ids = [publisher.toolExecuted(RUN).id];
  await publisher.flush();

  await receiver.stop();
  ids.push(publisher.toolExecuted(RUN).id);
  assert.equal(await publisher.flush(200), 1);
  assert.match(publisher.status().problem ?? "", /no answer/);
  await receiver.start();
  ids.push(publisher.toolExecuted(RUN).id);
  assert.equal(await publisher.flush(), 0);

  assert.deepEqual([...receiver.accepted.keys()], ids);
  assert.equal(publisher.status().problem, undefined);
});

test("an event that is not confirmed in time is lost as expired", async () => {
  create({ maxAgeMs: 50 });
  receiver.otherwise = status(503);

  const { id } = publisher.toolExecuted(RUN);
  await publisher.flush();
  await publisher.close();

  assert.deepEqual(lost.map((each) => [each.id, each.reason]), [[id, "expired"]]);
});

test("memory is bounded: the events that do not fit are lost, those before them are sent", async () => {
  create({ maxBytes: 1_000 });

  const receipts = [1, 2, 3, 4, 5].map(() => publisher.toolExecuted(RUN));
  await publisher.flush();
  await publisher.close();

  const dropped = receipts.filter(({ state }) => state === "dropped");
  assert.ok(dropped.length > 0 && dropped.length < 5);
  assert.deepEqual(lost.map(({ id }) => id), dropped.map(({ id }) => id));
  assert.ok(lost.every(({ reason }) => reason === "memory_full"));
  assert.equal(receiver.accepted.size + dropped.length, 5);
});

test("memory that confirmed events took is used again", async () => {
  create({ maxBytes: 1_000 });

  for (let count = 0; count < 10; count += 1) {
    publisher.toolExecuted(RUN);
    await publisher.flush();
  }

  assert.equal(receiver.accepted.size, 10);
});

test("flush does not wait for the debounce, and close for no retry", async () => {
  create({ debounceMs: 60_000, firstRetryMs: 60_000, longestRetryMs: 60_000 });
  receiver.next(receiver.accept, status(500));

  publisher.toolExecuted(RUN);
  assert.equal(await publisher.flush(), 0);
  publisher.toolExecuted(RUN);
  assert.equal(await publisher.flush(200), 1);
  await publisher.close();

  assert.deepEqual(lost, []);
  assert.equal(receiver.accepted.size, 2);
});

test("data that can't be written is dropped and does not throw", async () => {
  create();
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  const thrower = (field: string) =>
    Object.defineProperty({}, field, { enumerable: true, get: () => assert.fail("a getter") });

  const unwritable = [cycle, { count: 1n }, thrower("tool_name"), thrower("model"), null, undefined];
  for (const data of unwritable as unknown as ToolExecutedV1[]) {
    const receipt = publisher.toolExecuted(data);
    assert.equal(receipt.state === "dropped" && receipt.reason, "not_serializable");
  }
  const undated = publisher.toolExecuted(RUN, { time: new Date(Number.NaN) });
  const large = publisher.toolExecuted({ ...RUN, metadata: { text: "x".repeat(300_000) } });

  assert.equal(undated.state === "dropped" && undated.reason, "not_serializable");
  assert.equal(large.state === "dropped" && large.reason, "too_large");
  await publisher.close();
  assert.deepEqual(new Set(lost.map(({ type }) => type)), new Set(["tool.executed.v1"]));
});

test("a publisher without address or key loses every event and says so", async () => {
  const faults = [{ url: undefined }, { url: "nowhere" }, { url: "http://user:password@host" }];
  for (const missing of [...faults, { key: undefined }, { key: "a\nb" }]) {
    lost = [];
    create(missing);

    const receipt = publisher.toolExecuted(RUN);
    assert.equal(await publisher.flush(), 0);
    await publisher.close();

    assert.equal(receipt.state, "dropped");
    assert.deepEqual(lost.map(({ reason }) => reason), ["not_configured"]);
  }
});

test("a callback that throws, rejects or publishes again does no harm", async () => {
  for (const onLost of [
    () => assert.fail("thrown"),
    () => Promise.reject(new Error("rejected")),
    () => void publisher.toolExecuted(RUN),
  ]) {
    create({ onLost, maxBytes: 10 });

    publisher.toolExecuted(RUN);
    await publisher.close();

    assert.ok((publisher.status().lost.memory_full ?? 0) >= 1);
  }
});

test("without a callback, a line says how many events were lost and why", async (context) => {
  const log = context.mock.method(console, "error", () => undefined);
  const { url } = receiver;
  publisher = createPublisher({ url, key: "a-key", source: "tests", maxBytes: 10 });

  for (let count = 0; count < 3; count += 1) publisher.toolExecuted(RUN);
  await publisher.close();
  publisher.toolExecuted(RUN);
  await publisher.close();

  assert.deepEqual(
    log.mock.calls.map((call) => call.arguments),
    [
      ["nexus publisher: 3 events lost so far: memory_full"],
      ["nexus publisher: 1 events lost so far: closed"],
    ],
  );
});

test("waitUntil is asked to wait until the event is confirmed, and may fail", async () => {
  const promises: Promise<unknown>[] = [];
  create({ waitUntil: (promise) => promises.push(promise) });

  publisher.toolExecuted(RUN);
  assert.equal(promises.length, 1);
  await promises[0];

  assert.equal(publisher.status().confirmed, 1);

  create({ waitUntil: () => assert.fail("outside of a request") });
  publisher.toolExecuted(RUN);
  assert.equal(await publisher.flush(), 0);
});

test("waitUntil is not asked to wait for longer than its limit", async () => {
  const promises: Promise<unknown>[] = [];
  create({ waitUntil: (promise) => promises.push(promise), waitUntilMs: 30 });
  receiver.otherwise = status(503);

  publisher.toolExecuted(RUN);
  await promises[0];

  assert.equal(publisher.status().waiting, 1);
});

test("waitUntil waits for an event that follows on expired ones", async () => {
  const promises: Promise<unknown>[] = [];
  create({ waitUntil: (promise) => promises.push(promise), maxAgeMs: 1 });
  const arrived = new Promise<() => void>((resolve) => {
    receiver.next((batch, response) => resolve(() => status(503)(batch, response)));
  });

  publisher.toolExecuted(RUN);
  const answer = await arrived;
  publisher.toolExecuted(RUN);
  setTimeout(answer, 5);
  await promises[1];
  publisher.toolExecuted(RUN);
  await promises[2];

  assert.deepEqual(publisher.status().lost, { expired: 2 });
  assert.equal(publisher.status().confirmed, 1);
});

test("EdgeRuntime.waitUntil is found", async () => {
  const promises: Promise<unknown>[] = [];
  const edge = globalThis as { EdgeRuntime?: unknown };
  edge.EdgeRuntime = { waitUntil: (promise: Promise<unknown>) => promises.push(promise) };
  try {
    create();
    publisher.toolExecuted(RUN);
    await promises[0];
  } finally {
    delete edge.EdgeRuntime;
  }

  assert.equal(publisher.status().confirmed, 1);
});

test("close delivers what waits, reports the rest, and takes no more events", async () => {
  create();
  receiver.next(status(503));
  const first = publisher.toolExecuted(RUN);
  await publisher.close();
  const second = publisher.toolExecuted(RUN);
  await publisher.close();

  assert.deepEqual([...receiver.accepted.keys()], [first.id]);
  assert.equal(second.state === "dropped" && second.reason, "closed");

  create();
  receiver.otherwise = neverAnswer;
  const third = publisher.toolExecuted(RUN);
  const started = performance.now();
  await publisher.close(100);
  assert.ok(performance.now() - started < 1_000);
  assert.deepEqual(lost.map(({ id }) => id), [second.id, third.id]);
});

test("neither the key nor an event's values are seen when a publisher is printed", async () => {
  const { inspect } = await import("node:util");
  create({ key: "secret-key" });
  publisher.userCreated({ user_id: RUN.user_id, email: "somebody@example.com" });

  const printed = inspect(publisher, { depth: 10, showHidden: true }) + JSON.stringify(publisher);

  assert.doesNotMatch(printed, /secret-key|somebody/);
});
