/** Entitlements: answers are kept and shared, and no trouble of the API's reaches the host. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import dns from "node:dns";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, mock, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  createEntitlements,
  type Decision,
  type Entitlements,
  type EntitlementsOptions,
} from "@nexus-metering/publisher";

import { Circuit, FAILURES_TO_OPEN, MAX_PAUSE_MS, MAX_REQUESTS } from "../dist/circuit.js";
import { freshSeconds } from "../dist/entitlements.js";
import { type Answer, entitlement, limitOf, UsageApi, userOf } from "./usage_api.js";

const USER = randomUUID();
const BUDGET_MS = 100;
const AT_ONCE_MS = 10_000; // beyond budgets on a busy machine; a call that waited for its request takes twice that
const PATIENT_MS = 20_000; // for an API that answers: a busy machine must not make calls time out

let api: UsageApi;
let entitlements: Entitlements;

beforeEach(async () => {
  mock.method(console, "error", () => undefined);
  api = await new UsageApi().start();
});

afterEach(async () => {
  mock.restoreAll();
  entitlements.close();
  await api.stop();
});

function create(options: Partial<EntitlementsOptions> = {}): void {
  const patient = { budgetMs: PATIENT_MS, requestTimeoutMs: PATIENT_MS };
  entitlements = createEntitlements({ url: api.url, key: "a-key", ...patient, ...options });
}

function ask(user: string = USER, otherwise: "open" | "closed" = "closed"): Promise<Decision> {
  return entitlements.allowed(user, "weather", "forecast", { otherwise });
}

/** Ask until the decision is as wanted; the test's own timeout ends it. */
async function until(wanted: (decision: Decision) => boolean): Promise<void> {
  while (!wanted(await ask())) await sleep(5);
}

test("an answer is asked for once", async () => {
  create();

  const first = await ask();
  const second = await entitlements.allowed(USER.toUpperCase(), "weather", "history", { otherwise: "closed" });

  assert.deepEqual([first.why, second.why], ["allowed", "allowed"]);
  assert.equal(first.allowed, true);
  assert.deepEqual(api.requests.map(({ url }) => url), [`/v1/entitlements/${USER}`]);
  const { hit, fetched } = entitlements.status().calls;
  assert.deepEqual([fetched, hit], [1, 1]);
});

for (const path of ["/", "/v1/entitlements", "/v1/entitlements/"]) {
  test(`the address may end with ${path}`, async () => {
    create({ url: api.url + path });

    assert.equal((await ask()).allowed, true);
  });
}

test("a limit stops a run and is named, with the server's rate limit", async () => {
  api.changes = { limits: [limitOf(0)], rate_limits: [{ server_id: "weather", per_minute: 6 }] };
  create();

  const decision = await ask(USER, "open");

  assert.equal(decision.allowed, false);
  assert.deepEqual([decision.why, decision.limit, decision.perMinute], ["limit_reached", "runs", 6]);
  assert.equal(entitlements.status().decisions.limit_reached, 1);
});

test("an old answer is used while a new one is fetched", async () => {
  api.maxAge = 0;
  api.changes = { limits: [limitOf(100)] };
  create();
  await ask();

  api.changes = { limits: [limitOf(0)] };
  const stale = await ask();

  assert.deepEqual([stale.why, stale.stale], ["allowed", true]);
  await until(({ allowed }) => !allowed);
});

test("an old refusal waits for a new answer, and holds without one", async () => {
  api.maxAge = 0;
  api.changes = { limits: [limitOf(0)] };
  create();
  await ask();

  const answer = api.answer;
  api.answer = status(500);
  const held = await ask();
  api.answer = answer;
  api.changes = { limits: [limitOf(100)] };
  const upgraded = await ask();

  assert.deepEqual([held.why, held.stale], ["limit_reached", true]);
  assert.deepEqual([upgraded.why, upgraded.stale], ["allowed", false]);
});

test("an answer that did not change is not sent again", async () => {
  api.maxAge = 0;
  create();
  await ask();
  api.maxAge = 30;

  await ask();
  await until(({ stale }) => !stale);

  assert.equal(api.requests.length, 2);
  assert.ok(api.requests[1]?.headers["if-none-match"]);
});

test("an old answer is used while the API fails, up to its limit", async () => {
  api.maxAge = 0;
  create({ staleMs: 500 });
  await ask();
  api.answer = status(500);

  const stale = await ask();

  assert.deepEqual([stale.allowed, stale.stale], [true, true]);
  await until(({ why }) => why === "no_answer");
});

test("a thousand callers of one user make one request", async () => {
  create();

  const decisions = await Promise.all(Array.from({ length: 1000 }, () => ask()));

  assert.ok(decisions.every(({ allowed }) => allowed));
  assert.equal(api.requests.length, 1);
});

test("five hundred users at once are answered over a few connections", async () => {
  create();

  const decisions = await Promise.all(Array.from({ length: 500 }, () => ask(randomUUID())));

  assert.ok(decisions.every(({ allowed }) => allowed));
  assert.ok(api.connections.size < 100, `${api.connections.size} connections`); // some follow others
});

test("the cache is bounded in users", async () => {
  create({ maxUsers: 10 });

  await Promise.all(Array.from({ length: 30 }, () => ask(randomUUID())));

  assert.equal(entitlements.status().cachedUsers, 10);
});

const status =
  (code: number, headers: Record<string, string> = {}): Answer =>
  (_request, response) =>
    void response.writeHead(code, headers).end();

const body =
  (content: string | Buffer): Answer =>
  (_request, response) =>
    void response.writeHead(200).end(content);

const flood: Answer = (_request, response) => {
  const chunk = Buffer.alloc(65_536, " ");
  const more = () => {
    while (!response.destroyed && response.write(chunk));
  };
  response.on("drain", more);
  more();
};

const drip: Answer = (_request, response) => {
  const timer = setInterval(() => response.write(" "), 10);
  response.on("close", () => clearInterval(timer));
};

const FAULTS: Record<string, Answer> = {
  hangs: () => undefined,
  drips: drip,
  floods: flood,
  resets: (request) => void request.socket.resetAndDestroy(),
  fails: status(500),
  refuses: status(401),
  "is busy": status(429, { "retry-after": "1" }),
  "leads elsewhere": status(302, { location: "/" }),
  "has not changed what was never sent": status(304),
  "answers nothing": body(""),
  "answers a page": body("<html>"),
  "answers about another": (_request, response) =>
    void response.end(JSON.stringify(entitlement(randomUUID()))),
  "answers brackets": body("[".repeat(60_000)),
  "answers no text": body(Buffer.from([0xff, 0xfe, 0])),
};

test("an answer that is too long to be kept is none", async () => {
  api.changes = { features: ["x".repeat(65_536)] };
  create();

  assert.equal((await ask()).why, "no_answer");
  assert.equal(entitlements.status().problem, "malformed answer");
});

for (const [name, fault] of Object.entries(FAULTS)) {
  test(`a call ends within its budget with the stated choice if the API ${name}`, async () => {
    api.answer = fault;
    create({ budgetMs: BUDGET_MS });

    const began = performance.now();
    const open = await ask(USER, "open");
    const closed = await ask(randomUUID(), "closed");
    const ms = performance.now() - began;

    assert.deepEqual([open.allowed, closed.allowed], [true, false]);
    assert.deepEqual([open.why, closed.why], ["no_answer", "no_answer"]);
    assert.ok(ms < 2 * BUDGET_MS + AT_ONCE_MS, `${ms} ms`);
  });
}

test("a thousand callers of an API that hangs wait side by side", async () => {
  api.answer = () => undefined;
  create({ budgetMs: BUDGET_MS });
  const warnings: Error[] = [];
  const noted = (warning: Error) => void warnings.push(warning);
  process.on("warning", noted);

  const began = performance.now();
  const decisions = await Promise.all(Array.from({ length: 1100 }, () => ask(randomUUID(), "open")));
  const ms = performance.now() - began;

  process.off("warning", noted);
  assert.deepEqual(warnings, []);
  assert.ok(decisions.every(({ allowed, why }) => allowed && why === "no_answer"));
  assert.ok(api.requests.length <= 16, `${api.requests.length} requests`);
  assert.deepEqual([entitlements.status().calls.timeout, entitlements.status().calls.unavailable], [1000, 100]);
  assert.ok(ms < BUDGET_MS + AT_ONCE_MS, `${ms} ms`);
});

test("a look-up of the name that hangs costs the budget alone", async () => {
  const lookUp = mock.method(dns, "lookup", () => undefined);
  create({ url: "http://usage.test", budgetMs: BUDGET_MS });

  const began = performance.now();
  const { why } = await ask();
  const ms = performance.now() - began;

  assert.equal(why, "no_answer");
  assert.equal(lookUp.mock.callCount(), 1);
  assert.ok(ms < BUDGET_MS + AT_ONCE_MS, `${ms} ms`);
});

test("an outage is not waited for again and again, and ends by itself", async () => {
  create({ key: "another-key" });

  for (let call = 0; call < 100; call += 1) await ask();
  const asked = api.requests.length;
  const { problem } = entitlements.status();
  api.answer = (request, response) => void response.end(JSON.stringify(entitlement(userOf(request))));
  await until(({ why }) => why === "allowed");

  assert.ok(asked < 10, `${asked} requests`);
  assert.equal(problem, "HTTP 401");
  assert.equal(entitlements.status().problem, undefined);
  const lines = (console.error as unknown as ReturnType<typeof mock.fn>).mock.calls;
  assert.deepEqual(
    lines.map((line) => line.arguments[0]),
    ["nexus entitlements: not answered: HTTP 401", "nexus entitlements: answered again"],
  );
});

test("arguments that can't be used do not throw", async () => {
  create();
  const any = entitlements as unknown as { allowed(...given: unknown[]): Promise<Decision> };

  const decisions = await Promise.all([
    any.allowed("nobody", "weather", "forecast", { otherwise: "open" }),
    any.allowed(undefined, "weather", "forecast", { otherwise: "closed" }),
    any.allowed(USER, "weather", "forecast"),
    any.allowed(USER, "weather", 5, { otherwise: "opne" }),
    any.allowed(),
  ]);

  const answered = decisions.map(({ allowed, why }) => `${allowed} ${why}`);
  assert.deepEqual(answered, [
    "true no_answer",
    "false no_answer",
    "true allowed",
    "false no_answer",
    "false no_answer",
  ]);
  assert.equal(entitlements.status().calls.invalid, 4);
});

for (const [name, setting] of Object.entries({ url: { url: undefined }, key: { key: "a\nb" } })) {
  test(`without a usable ${name} no call throws or waits`, async () => {
    create(setting);

    const decision = await ask(USER, "open");

    assert.deepEqual([decision.allowed, decision.why], [true, "no_answer"]);
    assert.equal(entitlements.status().problem, "not_configured");
    assert.equal(entitlements.status().calls.unavailable, 1);
  });
}

test("a serverless function lives until the answer is kept", async () => {
  const kept: Promise<unknown>[] = [];
  create({
    budgetMs: 0,
    waitUntil: (promise) => {
      kept.push(promise);
      throw new Error("outside of a request");
    },
  });

  await ask();
  await Promise.all(kept);

  assert.equal(kept.length, 1);
  assert.equal((await ask()).why, "allowed");
});

test("closed entitlements answer from the cache alone", async () => {
  create();
  await ask();

  entitlements.close();

  assert.equal((await ask()).why, "allowed");
  assert.equal((await ask(randomUUID())).why, "no_answer");
});

test("a script that asks ends by itself", async () => {
  create();
  const script = `
    import { createEntitlements } from "@nexus-metering/publisher";
    const entitlements = createEntitlements({ url: "${api.url}", key: "a-key", budgetMs: ${PATIENT_MS} });
    const { why } = await entitlements.allowed("${USER}", "s", "t", { otherwise: "closed" });
    console.log(why)`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    cwd: new URL("..", import.meta.url),
    timeout: 15_000,
    stdio: ["ignore", "pipe", "inherit"],
  });

  const [output, [code]] = await Promise.all([text(child.stdout), once(child, "exit")]);

  assert.deepEqual([output, code], ["allowed\n", 0]);
});

for (const [header, seconds] of [
  ["private, max-age=30", 30],
  ["Max-Age=30,private", 30],
  ["s-maxage=30", 0],
  ["max-age=30, no-store", 0],
  ["no-cache,max-age=30", 0],
  ["max-age=-1", 0],
  ["max-age=99999999", 300],
  ["", 0],
  [null, 0],
] as const) {
  test(`an answer with ${JSON.stringify(header)} is fresh for ${seconds} s`, async () => {
    create();

    assert.equal(freshSeconds(header), seconds);
  });
}

test("failures in a row pause, and then one request tries", () => {
  create();
  const circuit = new Circuit();
  for (let failure = 0; failure < 1000; failure += 1) circuit.failed(10, 0.5);

  assert.equal(circuit.failures, FAILURES_TO_OPEN); // those that end in a pause do not lengthen it
  assert.equal(circuit.mayAsk(10, 0), false);
  assert.equal(circuit.mayAsk(circuit.openUntil, 0), true);
  assert.equal(circuit.mayAsk(circuit.openUntil, 1), false);
  for (let failure = 0; failure < 100; failure += 1) {
    const now = circuit.openUntil;
    circuit.failed(now, 0.99);
    assert.ok(circuit.openUntil - now <= MAX_PAUSE_MS);
  }
  circuit.succeeded();
  assert.equal(circuit.mayAsk(10, MAX_REQUESTS - 1), true);
  assert.equal(circuit.mayAsk(10, MAX_REQUESTS), false);
});

test("one answer that asks to wait is enough to wait, a minute at most", () => {
  create();
  const circuit = new Circuit();

  circuit.failed(0, 0, "5");
  assert.deepEqual([circuit.mayAsk(4_999, 0), circuit.mayAsk(5_000, 0)], [false, true]);
  circuit.failed(5_000, 0, "3600");
  assert.equal(circuit.mayAsk(65_000, 0), true);
});
