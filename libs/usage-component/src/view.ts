/** What is seen: the sections of the component, and the state that stands in their place. */

import { Chart } from "./chart.js";
import type { Data } from "./client.js";
import { Controls, type Choice } from "./controls.js";
import { amountsAsCsv, runsAsCsv } from "./csv.js";
import { button, h } from "./dom.js";
import { sumAmounts, sumRuns, type Figures } from "./figures.js";
import { metersOf, type Formats, type Meter, type Meters } from "./formats.js";
import { limits, planLine } from "./limits.js";
import { hoursFit, type Span, type Step } from "./ranges.js";
import { groupTable, meterTable, reading, timeTable } from "./tables.js";
import { fill, type FailureReason, type Texts } from "./texts.js";
import type { Usage } from "./wire.js";

export type Phase =
  | { readonly kind: "loading" }
  | { readonly kind: "ready" }
  | { readonly kind: "expired" }
  | { readonly kind: "failed"; readonly reason: FailureReason };

export interface Model {
  readonly phase: Phase;
  readonly choice: Choice;
  /** What was read last; it stays while other figures are read. */
  readonly data: Data | null;
}

interface Setting {
  readonly texts: Texts;
  readonly formats: Formats;
  readonly meters: Readonly<Record<string, Meter>>; // the page's own
}

interface Actions {
  readonly onChoice: (choice: Partial<Choice>) => void;
  readonly onReload: () => void;
}

export class View {
  readonly element: HTMLElement;
  readonly #setting: Setting;
  readonly #title = h("h2", { id: "title", tabindex: -1 });
  readonly #plan = h("p", { class: "muted" });
  readonly #asOf = h("span", { class: "muted" });
  readonly #message = h("div", { class: "message", part: "message" });
  readonly #messageText = h("span");
  readonly #limits = h("section", { "aria-labelledby": "limits", part: "limits" });
  readonly #controls: Controls;
  readonly #runs: HTMLElement;
  readonly #counts = h("p", { class: "counts" });
  readonly #readout = h("p", { class: "readout", part: "readout" });
  readonly #chart: Chart;
  readonly #groups = h("div");
  readonly #times = h("div");
  readonly #timesTitle = h("summary");
  readonly #details = h("details", {}, this.#timesTitle, this.#times);
  readonly #amounts = h("section", { "aria-labelledby": "amounts", part: "amounts" });
  readonly #downloads = h("div", { class: "downloads" });
  readonly #status = h("p", { class: "hidden", role: "status" });
  readonly #empty: HTMLElement;
  #figures: { readonly sums: Figures; readonly step: Step } | null = null;
  #phase: Phase["kind"] | null = null;

  constructor(setting: Setting, actions: Actions) {
    const { texts } = setting;
    this.#setting = setting;
    this.#controls = new Controls(texts, actions.onChoice);
    this.#chart = new Chart({
      ...setting,
      onRead: (position) => this.#readout.replaceChildren(...this.#readoutOf(position)),
      describe: (position) => this.#readingOf(position).map((node) => node.textContent).join("; "),
    });
    this.#message.append(this.#messageText, button(texts.retry, "retry", actions.onReload));
    this.#empty = h("p", { class: "muted", part: "empty" }, texts.empty);
    this.#runs = h(
      "section",
      { "aria-labelledby": "runs", part: "runs" },
      h("div", { class: "head" }, h("h3", { id: "runs" }, texts.runs), this.#counts),
      this.#empty,
      this.#chart.element,
      this.#readout,
      this.#groups,
      this.#details,
    );
    this.element = h(
      "section",
      { class: "usage", part: "usage", "aria-labelledby": "title" },
      h(
        "header",
        {},
        h("div", {}, this.#title, this.#plan),
        h("div", { class: "fresh" }, this.#asOf, button(texts.refresh, "refresh", actions.onReload)),
      ),
      this.#message,
      this.#limits,
      this.#controls.element,
      this.#runs,
      this.#amounts,
      this.#downloads,
      this.#status,
    );
  }

  show({ phase, choice, data }: Model): void {
    const { texts } = this.#setting;
    const messageHadFocus = this.#message.contains((this.element.getRootNode() as ShadowRoot).activeElement);
    this.element.setAttribute("aria-busy", String(phase.kind === "loading"));
    this.#title.textContent = texts.title;
    this.#controls.show(choice, hoursFit(choice.range));
    if (data === null) this.#showNothing(phase);
    else this.#showData(data, choice);
    const text = messageOf(phase, texts);
    this.#message.hidden = text === null;
    this.#message.className = `message ${phase.kind}`;
    this.#messageText.textContent = text;
    if (phase.kind !== this.#phase) this.#status.textContent = text ?? this.#spoken(phase, data);
    this.#phase = phase.kind;
    // What had the focus is gone: the reader goes on at the top of what came instead.
    if (messageHadFocus && text === null) this.#title.focus();
  }

  /** Light or dark. */
  colour(dark: boolean): void {
    this.element.classList.toggle("dark", dark);
    this.#chart.redraw();
  }

  close(): void {
    this.#chart.close();
  }

  #showNothing(phase: Phase): void {
    this.#figures = null;
    this.#chart.clear();
    this.#plan.textContent = phase.kind === "loading" ? this.#setting.texts.loading : "";
    this.#asOf.textContent = "";
    for (const section of this.#sections()) section.hidden = true;
    for (const filled of [this.#limits, this.#counts, this.#readout, this.#groups, this.#times, this.#amounts, this.#downloads]) {
      filled.replaceChildren();
    }
  }

  #showData(data: Data, { split }: Choice): void {
    const { texts, formats } = this.#setting;
    const { usage, entitlements, span, step } = data;
    const meters = metersOf(usage.meters, this.#setting.meters);
    const sums = sumRuns(usage.recorded, span, step, split);
    this.#figures = { sums, step };
    const asOf = Math.min(usage.asOf, entitlements?.asOf ?? usage.asOf);
    this.#asOf.textContent = fill(texts.asOf, { time: formats.moment(asOf) });
    this.#plan.textContent = entitlements === null ? "" : planLine(entitlements, texts, formats);
    this.#limits.replaceChildren(...(entitlements === null ? [] : limits(entitlements, meters, texts, formats)));
    for (const section of this.#sections()) section.hidden = false;
    this.#limits.hidden = entitlements === null;

    const empty = sums.runs === 0;
    for (const part of [this.#chart.element, this.#readout, this.#groups, this.#details]) part.hidden = empty;
    this.#empty.hidden = !empty;
    this.#chart.show(sums, step);
    this.#counts.replaceChildren(...this.#countsOf(sums, span));
    this.#readout.replaceChildren(...this.#readoutOf(null));
    this.#groups.replaceChildren(...(split === "none" ? [] : [groupTable(sums, split, texts, formats)]));
    this.#timesTitle.textContent = texts.figuresBy[step];
    this.#times.replaceChildren(timeTable(sums, step, texts, formats));

    this.#amounts.replaceChildren(...this.#amountsOf(usage, meters));
    this.#downloads.replaceChildren(...this.#downloadsOf(data));
  }

  #sections(): HTMLElement[] {
    return [this.#limits, this.#controls.element, this.#runs, this.#amounts, this.#downloads];
  }

  #countsOf({ runs, tokens }: Figures, { from, to }: Span): Node[] {
    const { texts, formats } = this.#setting;
    const counts = [formats.count(texts.runCount, runs)];
    if (tokens > 0) counts.push(formats.count(texts.tokenCount, tokens));
    counts.push(formats.dates(from, to - 1));
    return counts.map((count) => h("span", {}, count));
  }

  #readoutOf(position: number | null): Node[] {
    if (position !== null) return this.#readingOf(position);
    return [h("span", { class: "muted" }, this.#setting.texts.chartPrompt)];
  }

  #readingOf(position: number): Node[] {
    if (this.#figures === null) return [];
    const { texts, formats } = this.#setting;
    return reading(this.#figures.sums, position, this.#figures.step, texts, formats);
  }

  #amountsOf({ amounts, scope }: Usage, meters: Meters): Node[] {
    const { texts, formats } = this.#setting;
    const heading = h("h3", { id: "amounts" }, texts.amounts);
    const note = (text: string): Node => h("p", { class: "muted" }, text);
    if (amounts === null) return [h("div", { class: "head" }, heading), note(texts.amountsHidden)];
    const whose = scope === "account" ? texts.amountsShared : texts.amountsNote;
    const sums = sumAmounts(amounts);
    if (sums.length === 0) return [h("div", { class: "head" }, heading), note(texts.noAmounts)];
    return [h("div", { class: "head" }, heading, note(whose)), meterTable(sums, meters, texts, formats)];
  }

  #downloadsOf({ usage, span }: Data): Node[] {
    const { texts } = this.#setting;
    const days = [span.from, span.to - 1].map((time) => new Date(time).toISOString().slice(0, 10)).join("-to-");
    const runs = button(texts.downloadRuns, "download", () => download(`runs-${days}.csv`, runsAsCsv(usage)));
    const amounts = button(texts.downloadAmounts, "download", () =>
      download(`billing-${days}.csv`, amountsAsCsv(usage)),
    );
    return [runs, usage.amounts === null ? null : amounts].filter((each) => each !== null);
  }

  #spoken(phase: Phase, data: Data | null): string {
    const { texts, formats } = this.#setting;
    if (phase.kind === "loading") return texts.loading;
    if (data === null || this.#figures === null) return "";
    const { from, to } = data.span;
    const runs = formats.count(texts.runCount, this.#figures.sums.runs);
    return fill(texts.loaded, { runs, from: formats.date(from), to: formats.date(to - 1) });
  }
}

function messageOf(phase: Phase, texts: Texts): string | null {
  if (phase.kind === "expired") return texts.expired;
  return phase.kind === "failed" ? texts.failed[phase.reason] : null;
}

/** Have the browser save a file; nothing is sent anywhere. */
function download(name: string, text: string): void {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser reads it after the click
}
