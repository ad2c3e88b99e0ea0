/** What an answer of the usage API decides, by the cases that both packages decide alike. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { decide, type Otherwise, readEntitlement } from "../dist/decision.js";

interface Case {
  readonly name: string;
  readonly body: string | null;
  readonly server_id: string;
  readonly tool_name: string;
  readonly otherwise: Otherwise;
  readonly expect: { allowed: boolean; why: string; limit: string | null; per_minute: number | null };
}

const file = new URL("../../publisher/tests/entitlement_cases.json", import.meta.url);
const table = JSON.parse(readFileSync(file, "utf8")) as { user_id: string; cases: readonly Case[] };

for (const { name, body, server_id, tool_name, otherwise, expect } of table.cases) {
  test(`decision: ${name}`, () => {
    const read = body === null ? undefined : readEntitlement(body, table.user_id);

    const decision = decide(read, server_id, tool_name, otherwise);

    const { allowed, why, limit = null, perMinute: per_minute = null } = decision;
    assert.deepEqual({ allowed, why, limit, per_minute }, expect);
    assert.equal(decision.asOf === undefined, why === "no_answer");
  });
}

test("a decision says up to when usage was counted", () => {
  const read = readEntitlement(table.cases[0]?.body ?? "", table.user_id);

  const decision = decide(read, "s", "t", "closed", true);

  assert.equal(decision.asOf?.toISOString(), "2026-03-01T12:00:00.000Z");
  assert.equal(decision.stale, true);
});
