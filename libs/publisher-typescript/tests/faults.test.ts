/** Random faults: each event is accepted with its bytes, or reported as lost, and never both. */

import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";

import { createPublisher, type LostEvent, type ToolExecutedV1 } from "@nexus-metering/publisher";

import { type Behaviour, neverAnswer, Receiver, refuse, reset, status } from "./receiver.js";

const ROUNDS = Number(process.env["NEXUS_TEST_ROUNDS"] ?? 12);
const BAD = "bad";

/** A generator of random numbers that a seed repeats (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

for (let round = 0; round < ROUNDS; round += 1) {
  const seed = Number(process.env["NEXUS_TEST_SEED"] ?? randomInt(2 ** 31));
  test(`no event is lost without a report (NEXUS_TEST_SEED=${seed})`, async () => {
    const random = seeded(seed);
    const receiver = await new Receiver().start();
    const isBad = (event: { data: Record<string, unknown> }) => event.data["tool_name"] === BAD;
    const honest: Behaviour = (batch, response) =>
      (batch.some(isBad) ? refuse(isBad) : receiver.accept)(batch, response);
    const unanswered: Behaviour = (batch, response) => {
      if (batch.some(isBad)) return reset(batch, response);
      response.writeHead = () => response; // accepted, and the answer is lost
      response.end = () => response;
      receiver.accept(batch, response);
      response.socket?.resetAndDestroy();
    };
    const later: Behaviour = (batch, response) => void setTimeout(honest, 20, batch, response);
    const faults = [
      reset,
      neverAnswer,
      unanswered,
      later,
      status(500, {}, "<html>"),
      status(503, { "retry-after": "0" }),
      status(429, { "retry-after": "nonsense" }),
      status(400, {}, '{"errors": [{"index": -1}, {"index": 10000}, null, 3]}'),
      status(413),
      status(204),
      status(202, {}, "<html>"),
      status(202, {}, '{"accepted": 0}'),
      refuse(() => true, 403),
    ];
    const share = random() * 0.8;
    receiver.otherwise = (batch, response) => {
      const fault = random() < share ? faults[Math.floor(random() * faults.length)] : undefined;
      (fault ?? honest)(batch, response);
    };

    const lost: LostEvent[] = [];
    const publisher = createPublisher({
      url: receiver.url,
      key: "a-key",
      source: "tests",
      onLost: (events) => lost.push(...events),
      debounceMs: 2,
      requestTimeoutMs: 60,
      firstRetryMs: 1,
      longestRetryMs: 8,
      maxBytes: 30_000,
    });
    const recorded = new Set<string>();
    const expectedBad = new Set<string>();
    for (let wave = 0; wave < 10; wave += 1) {
      for (let count = Math.floor(random() * 30); count > 0; count -= 1) {
        const tool_name = random() < 0.05 ? BAD : "good";
        const { id, state } = publisher.toolExecuted({ ...RUN, tool_name });
        recorded.add(id);
        if (tool_name === BAD && state === "in_memory") expectedBad.add(id);
      }
      await sleep(random() * 10);
      if (random() < 0.1) {
        await receiver.stop();
        await sleep(5);
        await receiver.start();
      }
    }
    receiver.otherwise = honest;
    assert.equal(await publisher.flush(20_000), 0);
    await publisher.close();
    await receiver.stop();

    const reported = lost.map(({ id }) => id);
    assert.equal(new Set(reported).size, reported.length);
    assert.deepEqual(new Set([...receiver.accepted.keys(), ...reported]), recorded);
    assert.equal(receiver.accepted.size + reported.length, recorded.size);
    const refused = lost.filter(({ reason }) => reason === "refused");
    assert.deepEqual(new Set(refused.map(({ id }) => id)), expectedBad);
    for (const bytes of receiver.accepted.values()) assert.equal(new Set(bytes).size, 1);
    const { confirmed, waiting } = publisher.status();
    assert.deepEqual([confirmed, waiting], [receiver.accepted.size, 0]);
  });
}

const RUN: ToolExecutedV1 = {
  user_id: randomUUID(),
  server_id: "weather",
  tool_name: "forecast",
  origin: "hub",
  status: "succeeded",
};
