/** How a process that publishes ends. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, test } from "node:test";

import { neverAnswer, Receiver, status } from "./receiver.js";

let receiver: Receiver;

beforeEach(async () => {
  receiver = await new Receiver().start();
});

afterEach(() => receiver.stop());

/** Run a script, which has `publisher` and `RUN`, until it ends by itself. */
async function run(script: string): Promise<{ code: number; output: string; ms: number }> {
  const module = `
    import { createPublisher } from "@nexus-metering/publisher";
    const publisher = createPublisher({
      url: "${receiver.url}", key: "a-key", source: "tests", closeMs: 200,
      onLost: (lost) => console.log(lost.map(({ reason }) => reason).join()),
    });
    const RUN = { user_id: crypto.randomUUID(), server_id: "s", tool_name: "t", origin: "job", status: "failed" };
    ${script}`;
  const started = performance.now();
  const child = spawn(process.execPath, ["--input-type=module", "-e", module], {
    cwd: new URL("..", import.meta.url),
    timeout: 30_000,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, "exit")]);
  return { code, output, ms: performance.now() - started };
}

test("a process that is done delivers what it published, and ends by itself", async () => {
  const { code, output } = await run("publisher.toolExecuted(RUN)");

  assert.equal(code, 0);
  assert.equal(receiver.accepted.size, 1);
  assert.equal(output, "");
});

test("a publisher that is not used holds up no process", async () => {
  const { code } = await run("");

  assert.equal(code, 0);
});

for (const [name, fault] of Object.entries({ "does not answer": neverAnswer, fails: status(503) })) {
  test(`a process ends in time while the API ${name}, and reports its events`, async () => {
    receiver.otherwise = fault;

    const { code, output, ms } = await run("publisher.toolExecuted(RUN)");

    assert.equal(code, 0);
    assert.equal(output, "process_ended\n");
    assert.ok(ms < 5_000, `${ms} ms`);
  });
}

test("process.exit reports what it cuts off", async () => {
  const { output } = await run("publisher.toolExecuted(RUN); process.exit()");

  assert.equal(output, "process_ended\n");
});

test("a script may wait for flush, and for close, with nothing else to do", async () => {
  const { code, output } = await run(`
    publisher.toolExecuted(RUN);
    console.log(await publisher.flush());
    publisher.toolExecuted(RUN);
    await publisher.close();
    console.log("closed")`);

  assert.equal(code, 0);
  assert.equal(output, "0\nclosed\n");
  assert.equal(receiver.accepted.size, 2);
});

test("a callback that publishes again when the process ends does not keep it", async () => {
  receiver.otherwise = status(503);

  const { code } = await run(`
    const again = createPublisher({
      url: "${receiver.url}", key: "a-key", source: "tests", closeMs: 100,
      onLost: () => again.toolExecuted(RUN),
    });
    again.toolExecuted(RUN)`);

  assert.equal(code, 0);
});
