/** Numbers, dates and texts by language, CSV, and a page that is rendered on a server. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { amountsAsCsv, runsAsCsv } from "../src/csv.js";
import { Formats, metersOf } from "../src/formats.js";
import { NexusUsage } from "../src/index.js";
import { ENGLISH, fill, textOf } from "../src/texts.js";
import type { Usage } from "../src/wire.js";

const NOON = Date.UTC(2026, 10, 30, 12);

test("numbers and dates are written as the language writes them, in UTC", () => {
  const german = new Formats("de");
  const english = new Formats("en-GB");

  assert.equal(german.number(1234567), "1.234.567");
  assert.equal(english.date(NOON), "30 Nov 2026");
  assert.match(english.moment(NOON), /30 Nov 2026, 12:00.* UTC/);
  assert.equal(english.tick(NOON, "hour"), "12:00");
  assert.equal(english.tick(Date.UTC(2026, 10, 30), "hour"), "30 Nov");
  assert.equal(english.share(1, 0), "0.0%");
});

test("a language that does not exist is no error", () => {
  for (const language of ["", "no_such-language!", undefined]) new Formats(language).number(1);
});

test("the language decides which text counts", () => {
  const texts = { one: "{n} run", few: "{n} biegi", other: "{n} runs" };

  assert.equal(new Formats("en").count(texts, 1), "1 run");
  assert.equal(new Formats("pl").count(texts, 3), "3 biegi");
  assert.equal(new Formats("en").count({ other: "{n} runs" }, 1), "1 runs");
});

test("micro-units are shown as money, other amounts as numbers", () => {
  const formats = new Formats("en");

  assert.equal(formats.amount(1_500_000, { unit: "micro-USD" }), "$1.5000");
  assert.equal(formats.amount(1, { unit: "micro-USD" }), "$0.000001");
  assert.equal(formats.amount(8_999_999_999_999_993, { unit: "micro-USD" }), "$8,999,999,999.999993");
  assert.equal(formats.amount(1_500_000, { unit: "tokens" }), "1,500,000");
  assert.equal(formats.amount(1_500_000), "1,500,000");
});

test("what stands for nothing stays, and no value is a pattern", () => {
  assert.equal(fill("{a} of {b}", { a: "$&{b}" }), "$&{b} of {b}");
  assert.equal(textOf(ENGLISH.why, "not_sent"), "not sent yet");
  assert.equal(textOf(ENGLISH.why, "some_new_reason"), "some new reason");
  assert.equal(textOf(ENGLISH.why, "constructor"), "constructor");
});

test("what the page says of a meter replaces what the service says", () => {
  const answered = new Map([["cost", { name: "LLM cost", unit: "micro-USD" }], ["__proto__", { name: "odd" }]]);

  const meters = metersOf(answered, { cost: { name: "Kosten" }, runs: { name: "Runs" } });

  assert.deepEqual(meters.get("cost"), { name: "Kosten", unit: "micro-USD" });
  assert.deepEqual([meters.get("runs")?.name, meters.get("__proto__")?.name], ["Runs", "odd"]);
});

test("a range is written with its first and its last day", () => {
  const dates = new Formats("en-GB").dates(Date.UTC(2026, 10, 24), Date.UTC(2026, 11, 1) - 1);

  assert.match(dates, /^24.30 Nov 2026 UTC$/);
});

const USAGE: Usage = {
  userId: "u",
  accountId: "u",
  scope: "user",
  span: { from: NOON, to: NOON + 1 },
  by: "day",
  meters: new Map(),
  asOf: NOON,
  recorded: [],
  amounts: null,
};

for (const name of ["=1+1", "+1", "-1", "@x", "\tx", "\rx"]) {
  test(`a spreadsheet takes ${JSON.stringify(name)} for no formula`, () => {
    const row = { start: NOON, server: name, tool: "t", runs: 1, tokens: 0 };

    const text = runsAsCsv({ ...USAGE, recorded: [row] });

    assert.ok(text.includes(`,'${name},`) || text.includes(`,"'${name}",`));
  });
}

test("quotes, commas and line breaks stay within their cell", () => {
  const row = { start: NOON, server: 'a,"b"\nc', tool: "t", runs: 1, tokens: 2 };

  const text = runsAsCsv({ ...USAGE, recorded: [row] });

  assert.equal(text, '\ufeffstart,server_id,tool_name,runs,tokens\r\n2026-11-30T12:00:00.000Z,"a,""b""\nc",t,1,2\r\n');
});

test("every reason that occurs is a column of the amounts, and so is what was reported in another way", () => {
  const amounts = [
    { start: NOON, meter: "a", accepted: 1, waiting: 2, shadow: 0, why: new Map([["refused", 2]]), reasons: new Map() },
    { start: NOON, meter: "b", accepted: 3, waiting: 4, shadow: 7, why: new Map([["not_sent", 4]]), reasons: new Map() },
  ];

  assert.deepEqual(amountsAsCsv({ ...USAGE, amounts }).slice(1).split("\r\n"), [
    "start,meter,accepted,waiting,shadow,not_sent,refused",
    "2026-11-30T12:00:00.000Z,a,1,2,0,0,2",
    "2026-11-30T12:00:00.000Z,b,3,4,7,4,0",
    "",
  ]);
});

test("a server that renders the page can import the package", () => {
  assert.equal(typeof NexusUsage, "function");
  assert.equal(globalThis.customElements, undefined);
});
