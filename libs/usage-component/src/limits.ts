/** The plan's limits: how much is used and left, as bars with their text. */

import { h, named } from "./dom.js";
import type { Formats, Meter, Meters } from "./formats.js";
import { fill, textOf, type Texts } from "./texts.js";
import type { Entitlements, Limit, Pattern } from "./wire.js";

const NEAR = 0.8;

/** Where a limit stands. */
export type Standing = "within" | "near" | "reached";

/** Make the section's content. */
export function limits(
  entitlements: Entitlements,
  meters: Meters,
  texts: Texts,
  formats: Formats,
): Node[] {
  const items = joined(entitlements.limits).map(([limit, patterns]) =>
    item(limit, meters.get(limit.meter), patterns, texts, formats),
  );
  const shared = entitlements.accountId !== entitlements.userId && items.length > 0;
  return [
    h(
      "div",
      { class: "head" },
      h("h3", { id: "limits" }, texts.limits),
      shared ? h("p", { class: "muted" }, texts.limitsShared) : null,
    ),
    items.length === 0
      ? h("p", { class: "muted" }, texts.noLimits)
      : h("ul", { class: "limits", role: "list" }, ...items),
    ...terms(entitlements, texts, formats),
  ];
}

/** Join the entries of one limit, of which the answer has one for each pattern. */
export function joined(entries: readonly Limit[]): (readonly [Limit, readonly Pattern[]])[] {
  const found = new Map<string, readonly [Limit, Pattern[]]>();
  for (const entry of entries) {
    const key = JSON.stringify([entry.name, entry.meter]);
    const known = found.get(key);
    if (known === undefined) found.set(key, [entry, [entry.pattern]]);
    else known[1].push(entry.pattern);
  }
  return [...found.values()];
}

/** Decide where a limit stands, if that may be seen. */
export function standing({ limit, used, remaining }: Limit): Standing {
  if (used === null || remaining === null) return "within";
  if (remaining <= 0) return "reached";
  return used >= limit * NEAR ? "near" : "within";
}

function item(
  limit: Limit,
  meter: Meter | undefined,
  patterns: readonly Pattern[],
  texts: Texts,
  formats: Formats,
): HTMLLIElement {
  const names = texts.limitNames;
  const name = Object.hasOwn(names, limit.name) ? (names[limit.name] ?? limit.name) : limit.name;
  const amount = (value: number): string => formats.amount(value, meter);
  const stands = standing(limit);
  const all = patterns.some(({ server, tool }) => server === "*" && tool === "*");
  const notes = [
    all ? null : fill(texts.limitFor, { patterns: patterns.map((each) => nameOf(each, texts)).join(", ") }),
    limit.hard ? texts.limitHard : texts.limitSoft,
    fill(texts.limitUntil, { time: formats.date(limit.periodEnd) }),
  ];
  return h(
    "li",
    { class: `limit ${stands}`, part: `limit limit-${stands}` },
    h(
      "div",
      { class: "line" },
      named(name, { class: "name" }),
      h("span", { class: "state" }, stateOf(limit, stands, texts, amount)),
    ),
    ...(limit.used === null ? [] : bar(name, limit.used, limit, stands, texts, amount)),
    h("p", { class: "muted" }, notes.filter((note) => note !== null).join(" ")),
  );
}

function bar(
  name: string,
  used: number,
  limit: Limit,
  stands: Standing,
  texts: Texts,
  amount: (value: number) => string,
): Node[] {
  const said = fill(texts.limitUsed, { used: amount(used), limit: amount(limit.limit) });
  const filled = h("span");
  filled.style.inlineSize = `${Math.min(100, limit.limit > 0 ? (100 * used) / limit.limit : 100)}%`;
  const meter = {
    role: "meter",
    class: "bar",
    part: "limit-bar",
    "aria-label": name,
    "aria-valuemin": 0,
    "aria-valuemax": limit.limit,
    "aria-valuenow": Math.min(used, limit.limit),
    "aria-valuetext": `${said}. ${stateOf(limit, stands, texts, amount)}`,
  };
  return [h("div", meter, filled), h("p", {}, said)];
}

/** What is left, in words that do not need the bar's colour. */
function stateOf(
  { limit, used, remaining, hard }: Limit,
  stands: Standing,
  texts: Texts,
  amount: (value: number) => string,
): string {
  if (used === null || remaining === null) return fill(texts.limitHidden, { limit: amount(limit) });
  if (stands === "reached") return hard || used <= limit ? texts.limitReached : texts.limitExceeded;
  const left = fill(texts.limitRemaining, { remaining: amount(remaining) });
  return stands === "near" ? `${texts.limitNear}: ${left}` : left;
}

/** What the plan says besides: runs a minute, and what it does not include. */
function terms(entitlements: Entitlements, texts: Texts, formats: Formats): Node[] {
  const rates = entitlements.rateLimits.map(({ server, perMinute }) => [
    `${formats.count(texts.perMinute, perMinute)}, `,
    server === "*" ? texts.allServers : named(server),
  ]);
  const denied = entitlements.denied.map((pattern) => [named(nameOf(pattern, texts))]);
  const rows = [
    { term: texts.rateLimits, lists: rates },
    { term: texts.denied, lists: denied },
  ].filter(({ lists }) => lists.length > 0);
  if (rows.length === 0) return [];
  const entries = rows.flatMap(({ term, lists }) => [
    h("dt", {}, term),
    h("dd", {}, ...lists.flatMap((list, n) => (n === 0 ? list : [" · ", ...list]))),
  ]);
  return [h("dl", { class: "terms" }, ...entries)];
}

function nameOf({ server, tool }: Pattern, texts: Texts): string {
  if (server === "*" && tool === "*") return texts.everything;
  return tool === "*" ? server : `${server} / ${tool}`;
}

/** The plan's name, its status and its seats, in one line. */
export function planLine({ plan, status, seats }: Entitlements, texts: Texts, formats: Formats): string {
  const parts = [
    plan === null ? texts.noPlan : fill(texts.plan, { plan }),
    status === null ? null : textOf(texts.status, status),
    seats === null ? null : formats.count(texts.seats, seats),
  ];
  return parts.filter((part) => part !== null).join(" · ");
}
