/** The tables: runs by server or tool, runs by day or hour, amounts by meter. */

import { h, named, type Child } from "./dom.js";
import { COLOURS, stackOf, type Figures, type Group, type MeterSum, type Part, type Split } from "./figures.js";
import type { Formats, Meters } from "./formats.js";
import type { Step } from "./ranges.js";
import { textOf, type Texts } from "./texts.js";

/** The cause in `why` whose parts are in `reasons`. */
const REFUSED = "refused";

/** Every server or tool, the largest first, with the colours of the chart: also its legend. */
export function groupTable(figures: Figures, split: Split, texts: Texts, formats: Formats): HTMLElement {
  const heading = split === "tool" ? texts.tool : texts.server;
  const rows = figures.groups.map((group, n) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, swatch(n), ...groupName(group)),
      number(formats.number(group.runs)),
      number(formats.share(group.runs, figures.runs)),
      number(formats.number(group.tokens)),
    ),
  );
  const total = h(
    "tr",
    {},
    h("th", { scope: "row" }, texts.total),
    number(formats.number(figures.runs)),
    number(formats.share(figures.runs, figures.runs)),
    number(formats.number(figures.tokens)),
  );
  const headings = [heading, texts.runs, texts.share, texts.tokens];
  return scrolling(texts.splits[split], table(texts.splits[split], headings, rows, total));
}

/** The chart's figures, the last day or hour first. */
export function timeTable(figures: Figures, step: Step, texts: Texts, formats: Formats): HTMLElement {
  const { shown, others } = stackOf(figures);
  const columns = [figures.totals, ...shown.map(({ values }) => values), ...(others === null ? [] : [others])];
  const headings = [
    texts.timeColumn[step],
    texts.total,
    ...shown.map((group) => h("span", {}, ...groupName(group))),
    ...(others === null ? [] : [texts.others]),
  ];
  const rows = figures.starts.map((start, n) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, formats.start(start, step)),
      ...columns.map((column) => number(formats.number(column[n] ?? 0))),
    ),
  );
  return scrolling(texts.figuresBy[step], table(texts.figuresBy[step], headings, rows.reverse()));
}

/** What Stripe has accepted, what waits, and why. */
export function meterTable(
  sums: readonly MeterSum[],
  meters: Meters,
  texts: Texts,
  formats: Formats,
): HTMLElement {
  const rows = sums.map((sum) => {
    const meter = meters.get(sum.meter);
    const amount = (value: number): string => formats.amount(value, meter);
    return h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        named(meter?.name ?? sum.meter),
        ...causes(sum, texts, amount),
      ),
      number(amount(sum.accepted)),
      number(amount(sum.waiting)),
    );
  });
  return table(texts.amounts, [texts.meter, texts.accepted, texts.waiting], rows);
}

/** Why a meter's amounts wait, a line for each cause; under what is refused, for which reason; and what never waits. */
function causes({ why, reasons, shadow }: MeterSum, texts: Texts, amount: (value: number) => string): HTMLElement[] {
  const line = (words: Readonly<Record<string, string>>, [name, value]: Part, ...more: HTMLElement[]): HTMLElement =>
    h("li", {}, `${amount(value)} ${textOf(words, name)}`, ...more);
  const list = (...items: HTMLElement[]): HTMLElement[] =>
    items.length === 0 ? [] : [h("ul", { class: "causes muted", role: "list" }, ...items)];
  const refused = list(...reasons.map((each) => line(texts.reasons, each)));
  const elsewhere = shadow === 0 ? [] : [h("li", {}, `${amount(shadow)} ${texts.shadow}`)];
  return list(...why.map((each) => line(texts.why, each, ...(each[0] === REFUSED ? refused : []))), ...elsewhere);
}

/** One position of the chart in pieces: the time, its runs, and those of each colour. */
export function reading(figures: Figures, position: number, step: Step, texts: Texts, formats: Formats): Node[] {
  const { shown, others } = stackOf(figures);
  const parts = shown.map((group, n) => ({ name: named(group.tool ?? group.server), n, value: group.values[position] ?? 0 }));
  if (others !== null) parts.push({ name: h("span", {}, texts.others), n: COLOURS, value: others[position] ?? 0 });
  const total = formats.count(texts.runCount, figures.totals[position] ?? 0);
  return [
    h("span", {}, h("b", {}, formats.start(figures.starts[position] ?? 0, step)), `: ${total}`),
    ...parts
      .filter(({ value }) => value > 0)
      .map(({ name, n, value }) => h("span", {}, swatch(n), name, ` ${formats.number(value)}`)),
  ];
}

function groupName({ server, tool }: Group): Child[] {
  return tool === null ? [named(server)] : [named(tool), " ", named(server, { class: "of" })];
}

function swatch(position: number): HTMLElement {
  const colour = position < COLOURS ? String(position + 1) : "others";
  return h("i", { class: `swatch series-${colour}`, "aria-hidden": "true" });
}

function number(text: string): HTMLTableCellElement {
  return h("td", { class: "number" }, text);
}

function table(
  caption: string,
  headings: readonly (string | Node)[],
  rows: readonly HTMLElement[],
  total: HTMLElement | null = null,
): HTMLTableElement {
  const cells = headings.map((heading, n) => h("th", { scope: "col", class: n > 0 ? "number" : null }, heading));
  return h(
    "table",
    { part: "table" },
    h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, ...cells)),
    h("tbody", {}, ...rows),
    total === null ? null : h("tfoot", {}, total),
  );
}

/** A long table scrolls in its own frame, which the keyboard reaches. */
function scrolling(label: string, content: HTMLElement): HTMLElement {
  return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, content);
}
