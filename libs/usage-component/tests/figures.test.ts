/** Ranges, sums, and where a limit stands. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ticksOf } from "../src/chart.js";
import { COLOURS, stackOf, sumAmounts, sumRuns } from "../src/figures.js";
import { joined, standing } from "../src/limits.js";
import { monthOf, spanOf, startsIn } from "../src/ranges.js";
import type { Limit } from "../src/wire.js";

const NOW = Date.UTC(2026, 10, 30, 18, 52);
const DAY = 86_400_000;
const HOUR = 3_600_000;
const PERIOD = { from: Date.UTC(2026, 10, 14, 9, 30), to: Date.UTC(2026, 11, 14, 9, 30) };

function run(day: number, server: string, tool: string, runs: number, tokens = 0) {
  return { start: Date.UTC(2026, 10, day), server, tool, runs, tokens };
}

test("seven days end with today, and with this hour if hours are shown", () => {
  assert.deepEqual(spanOf("7d", "day", NOW, PERIOD), { from: Date.UTC(2026, 10, 24), to: Date.UTC(2026, 11, 1) });
  assert.deepEqual(spanOf("7d", "hour", NOW, PERIOD), { from: Date.UTC(2026, 10, 24), to: Date.UTC(2026, 10, 30, 19) });
});

test("a period begins at its minute and ends with today, or before", () => {
  assert.deepEqual(spanOf("period", "day", NOW, PERIOD), { from: PERIOD.from, to: Date.UTC(2026, 11, 1) });
  const last = { from: PERIOD.from - 60 * DAY, to: PERIOD.from };
  assert.deepEqual(spanOf("period", "day", NOW, last), last);
});

test("a period that begins after the browser's clock is still a span", () => {
  const next = { from: NOW + 2 * DAY, to: NOW + 30 * DAY };

  const { from, to } = spanOf("period", "day", NOW, next);

  assert.ok(to > from);
  assert.equal(startsIn({ from, to }, "day").length, 1);
});

test("an account without a period has the month, also in December", () => {
  assert.deepEqual(monthOf(NOW), { from: Date.UTC(2026, 10, 1), to: Date.UTC(2026, 11, 1) });
  assert.deepEqual(monthOf(Date.UTC(2026, 11, 31)), { from: Date.UTC(2026, 11, 1), to: Date.UTC(2027, 0, 1) });
});

test("every day that a span touches has a place, also one in part", () => {
  assert.deepEqual(startsIn(PERIOD, "day").length, 31);
  assert.deepEqual(startsIn({ from: NOW, to: NOW + 1 }, "hour"), [Date.UTC(2026, 10, 30, 18)]);
});

test("runs are summed by day and by server, the largest first", () => {
  const span = { from: Date.UTC(2026, 10, 1), to: Date.UTC(2026, 10, 4) };
  const runs = [run(1, "a", "x", 2, 10), run(1, "a", "y", 3), run(3, "b", "x", 7), run(9, "b", "x", 100)];

  const figures = sumRuns(runs, span, "day", "server");

  assert.deepEqual(figures.totals, [5, 0, 7]);
  assert.equal(figures.runs, 12);
  assert.equal(figures.tokens, 10);
  assert.deepEqual(figures.groups.map(({ server, runs, values }) => [server, runs, values]), [
    ["b", 7, [0, 0, 7]],
    ["a", 5, [5, 0, 0]],
  ]);
});

test("tools of one name on two servers are two tools", () => {
  const span = { from: Date.UTC(2026, 10, 1), to: Date.UTC(2026, 10, 2) };
  const runs = [run(1, "a", "search", 1), run(1, "b", "search", 1), run(1, "__proto__", "constructor", 1)];

  assert.equal(sumRuns(runs, span, "day", "tool").groups.length, 3);
  assert.equal(sumRuns(runs, span, "day", "none").groups.length, 0);
});

test("groups beyond the colours are stacked as one, and nothing is lost", () => {
  const span = { from: Date.UTC(2026, 10, 1), to: Date.UTC(2026, 10, 2) };
  const runs = Array.from({ length: COLOURS + 3 }, (_, n) => run(1, `server-${n}`, "t", n + 1));

  const figures = sumRuns(runs, span, "day", "server");
  const { shown, others } = stackOf(figures);

  assert.equal(shown.length, COLOURS);
  assert.deepEqual(others, [1 + 2 + 3]);
  assert.equal(shown.reduce((sum, group) => sum + group.runs, 0) + 6, figures.runs);
});

test("amounts are summed by meter, and reasons with them", () => {
  const start = NOW;
  const sums = sumAmounts([
    { start, meter: "b", accepted: 1, waiting: 2, shadow: 4, why: new Map([["not_sent", 2], ["x", 0]]), reasons: new Map() },
    { start, meter: "a", accepted: 5, waiting: 0, shadow: 0, why: new Map(), reasons: new Map() },
    { start, meter: "b", accepted: 10, waiting: 3, shadow: 0, why: new Map([["refused", 3]]), reasons: new Map([["old", 3]]) },
    { start, meter: "b", accepted: 0, waiting: 1, shadow: 3, why: new Map([["refused", 1]]), reasons: new Map([["old", 1]]) },
  ]);

  assert.deepEqual(sums, [
    { meter: "a", accepted: 5, waiting: 0, shadow: 0, why: [], reasons: [] },
    { meter: "b", accepted: 11, waiting: 6, shadow: 7, why: [["not_sent", 2], ["refused", 4]], reasons: [["old", 4]] },
  ]);
});

test("the chart's labels are as many as fit, on whole days and hours", () => {
  const days = startsIn({ from: NOW - 29 * DAY, to: NOW }, "day");
  const hours = startsIn({ from: Date.UTC(2026, 10, 24), to: NOW }, "hour");

  for (const width of [0, 100, 320, 900]) {
    assert.ok(ticksOf(days, "day", width).length <= Math.max(2, width / 60));
    assert.ok(ticksOf(hours, "hour", width).every((n) => ((hours[n] ?? 0) / HOUR) % 12 === 0));
  }
  assert.equal(ticksOf(days, "day", 900).at(-1), days.length - 1);
});

const LIMIT: Limit = {
  name: "runs",
  meter: "m",
  pattern: { server: "*", tool: "*" },
  limit: 100,
  used: 0,
  remaining: 100,
  hard: true,
  periodEnd: NOW,
};

for (const [used, remaining, expected] of [
  [0, 100, "within"],
  [79, 21, "within"],
  [80, 20, "near"],
  [100, 0, "reached"],
  [130, 0, "reached"],
  [null, null, "within"],
] as const) {
  test(`a limit of 100 of which ${used} are used is ${expected}`, () => {
    assert.equal(standing({ ...LIMIT, used, remaining }), expected);
  });
}

test("a limit of nothing is reached", () => {
  assert.equal(standing({ ...LIMIT, limit: 0, used: 0, remaining: 0 }), "reached");
});

test("a limit with several patterns is one limit", () => {
  const of = (server: string) => ({ ...LIMIT, name: "premium", pattern: { server, tool: "*" } });

  const limits = joined([LIMIT, of("browser"), of("sql-*")]);

  assert.deepEqual(limits.map(([{ name }, patterns]) => [name, patterns.map(({ server }) => server)]), [
    ["runs", ["*"]],
    ["premium", ["browser", "sql-*"]],
  ]);
});
