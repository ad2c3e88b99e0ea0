/** Answers of the API, right and wrong, and the token's user. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { subjectOf } from "../src/token.js";
import { readEntitlements, readUsage, UnreadableAnswerError } from "../src/wire.js";

const USAGE = {
  user_id: "u",
  account_id: "a",
  scope: "user",
  from: "2026-11-01T00:00:00Z",
  to: "2026-12-01T00:00:00Z",
  by: "day",
  as_of: "2026-11-30T10:00:00.123456Z",
  recorded: [{ start: "2026-11-02T00:00:00Z", server_id: "weather", tool_name: "forecast", runs: 3, tokens: 120 }],
  amounts: [
    {
      start: "2026-11-02T00:00:00Z",
      meter: "tool_call_executed",
      accepted: 10,
      waiting: 2,
      shadow: 4,
      why: { not_sent: 1, refused: 1 },
      reasons: { no_such_customer: 1 },
      added_later: 1,
    },
  ],
  meters: { tool_call_executed: { display_name: "Tool calls", unit: null }, cost: { display_name: "Cost", unit: "micro-USD" } },
};

const ENTITLEMENTS = {
  user_id: "u",
  account_id: "a",
  plan: "pro",
  plan_name: "Pro",
  status: "active",
  features: ["export"],
  denied: [{ server_id: "sql-*", tool_name: "*" }],
  limits: [
    {
      name: "runs",
      meter: "tool_call_executed",
      server_id: "*",
      tool_name: "*",
      limit: 1000,
      used: null,
      remaining: null,
      hard: true,
      period_start: "2026-11-01T00:00:00Z",
      period_end: "2026-12-01T00:00:00Z",
    },
  ],
  rate_limits: [{ server_id: "*", per_minute: 60 }],
  period: { start: "2026-11-01T00:00:00Z", end: "2026-12-01T00:00:00Z", basis: "stripe" },
  seats: null,
  as_of: "2026-11-30T10:00:00Z",
};

test("usage is read, and fields that are new are ignored", () => {
  const usage = readUsage(USAGE);

  assert.equal(usage.asOf, Date.UTC(2026, 10, 30, 10, 0, 0, 123));
  assert.deepEqual(usage.recorded, [
    { start: Date.UTC(2026, 10, 2), server: "weather", tool: "forecast", runs: 3, tokens: 120 },
  ]);
  assert.equal(usage.amounts?.[0]?.shadow, 4);
  assert.deepEqual(usage.amounts?.[0]?.why, new Map([["not_sent", 1], ["refused", 1]]));
  assert.deepEqual(usage.amounts?.[0]?.reasons, new Map([["no_such_customer", 1]]));
  assert.deepEqual(usage.meters, new Map([["tool_call_executed", { name: "Tool calls" }], ["cost", { name: "Cost", unit: "micro-USD" }]]));
});

test("a service without a file of plans names no meters", () => {
  const { meters: _, ...without } = USAGE;

  assert.equal(readUsage(without).meters.size, 0);
});

test("amounts that are absent are not amounts of nothing", () => {
  const { amounts: _, ...without } = USAGE;

  assert.equal(readUsage(without).amounts, null);
  assert.deepEqual(readUsage({ ...USAGE, amounts: [] }).amounts, []);
});

test("entitlements are read, with limits whose use is hidden", () => {
  const entitlements = readEntitlements(ENTITLEMENTS);

  assert.equal(entitlements.plan, "Pro");
  assert.equal(entitlements.limits[0]?.used, null);
  assert.deepEqual(entitlements.denied, [{ server: "sql-*", tool: "*" }]);
});

const without = (name: string) => Object.fromEntries(Object.entries(USAGE).filter(([key]) => key !== name));
const [RUN] = USAGE.recorded;
const [AMOUNT] = USAGE.amounts;
const recorded = (...runs: object[]) => ({ ...USAGE, recorded: runs.map((run) => ({ ...RUN, ...run })) });
const amounts = (amount: object) => ({ ...USAGE, amounts: [{ ...AMOUNT, ...amount }] });
for (const [what, answer] of Object.entries({
  "null": null,
  "a list": [USAGE],
  "no user": without("user_id"),
  "no runs": without("recorded"),
  "runs that are no list": { ...USAGE, recorded: {} },
  "a time that is none": { ...USAGE, as_of: "soon" },
  "a time of no zone": { ...USAGE, as_of: "2026-11-30T10:00:00" },
  "a time in words": { ...USAGE, as_of: "30 Nov 2026 10:00 UTC" },
  "a day that there is not": { ...USAGE, as_of: "2026-13-30T10:00:00Z" },
  "a span that ends before it begins": { ...USAGE, from: USAGE.to, to: USAGE.from },
  "runs outside of its span": recorded({ start: USAGE.to }),
  "amounts outside of its span": amounts({ start: "2026-10-31T00:00:00Z" }),
  "a number as text": recorded({ runs: "3" }),
  "a number that is none": recorded({ runs: Number.NaN }),
  "tokens of another type": recorded({ tokens: "120" }),
  "less than no runs": recorded({ runs: -1 }),
  "half a run": recorded({ runs: 0.5 }),
  "a number that was rounded": recorded({ runs: 2 ** 53 }),
  "a sum that was rounded": recorded({ runs: 2 ** 52 }, { runs: 2 ** 52 }),
  "amounts of less than nothing": amounts({ accepted: -1 }),
  "a cause of another type": amounts({ why: { not_sent: "1" } }),
  "a reason of another type": amounts({ reasons: [] }),
  "a meter of another type": { ...USAGE, meters: { tool_call_executed: "Tool calls" } },
  "a unit of another type": { ...USAGE, meters: { tool_call_executed: { display_name: "a", unit: 1 } } },
  "more runs than any answer has": { ...USAGE, recorded: new Array(100_001).fill(RUN) },
  "a field of the prototype": Object.create(USAGE),
})) {
  test(`an answer with ${what} is unreadable`, () => {
    assert.throws(() => readUsage(answer), UnreadableAnswerError);
  });
}

const [LIMIT] = ENTITLEMENTS.limits;
for (const [what, answer] of Object.entries({
  "a plan of another type": { ...ENTITLEMENTS, plan: 7, plan_name: null },
  "seats of another type": { ...ENTITLEMENTS, seats: "5" },
  "a use of another type": { ...ENTITLEMENTS, limits: [{ ...LIMIT, used: "12", remaining: 988 }] },
  "a period that ends before it begins": { ...ENTITLEMENTS, period: { start: USAGE.to, end: USAGE.from } },
})) {
  test(`entitlements with ${what} are unreadable`, () => {
    assert.throws(() => readEntitlements(answer), UnreadableAnswerError);
  });
}

test("a token names its user; anything else names none", () => {
  const payload = (claims: unknown) => Buffer.from(JSON.stringify(claims)).toString("base64url");

  assert.equal(subjectOf(`e30.${payload({ sub: "018f-ü?>" })}.signature`)?.slice(0, 5), "018f-");
  for (const other of ["", "a", "a.b.c", `e30.${payload({})}.s`, `e30.${payload({ sub: 7 })}.s`, `e30.${payload(null)}.s`]) {
    assert.equal(subjectOf(other), null);
  }
});
