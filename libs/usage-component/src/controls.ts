/** The range, the step and the split that a reader picks. */

import { h } from "./dom.js";
import { SPLITS, type Split } from "./figures.js";
import { RANGES, STEPS, type Range, type Step } from "./ranges.js";
import type { Texts } from "./texts.js";

/** What is shown of the usage. */
export interface Choice {
  readonly range: Range;
  readonly step: Step;
  readonly split: Split;
}

export class Controls {
  readonly element: HTMLElement;
  readonly #ranges: ReadonlyMap<Range, HTMLInputElement>;
  readonly #step: HTMLSelectElement;
  readonly #stepLabel: HTMLElement;
  readonly #split: HTMLSelectElement;

  constructor(texts: Texts, onChoice: (choice: Partial<Choice>) => void) {
    this.#ranges = new Map(
      RANGES.map((range) => {
        const input = h("input", { type: "radio", name: "range", value: range });
        input.addEventListener("change", () => onChoice({ range }));
        return [range, input];
      }),
    );
    this.#step = picker(STEPS, texts.steps, (step) => onChoice({ step }));
    this.#split = picker(SPLITS, texts.splits, (split) => onChoice({ split }));
    this.#stepLabel = labelled(texts.step, this.#step);
    const choices = [...this.#ranges].map(([range, input]) =>
      h("label", { class: "choice" }, input, h("span", {}, texts.ranges[range])),
    );
    this.element = h(
      "div",
      { class: "controls", part: "controls" },
      h("fieldset", { class: "choices" }, h("legend", { class: "hidden" }, texts.range), ...choices),
      this.#stepLabel,
      labelled(texts.split, this.#split),
    );
  }

  /** Show a choice; hours are offered only where they fit. */
  show({ range, step, split }: Choice, hoursFit: boolean): void {
    for (const [each, input] of this.#ranges) input.checked = each === range;
    this.#step.value = step;
    this.#stepLabel.hidden = !hoursFit;
    this.#split.value = split;
  }
}

function picker<T extends string>(
  values: readonly T[],
  texts: Readonly<Record<T, string>>,
  onPick: (value: T) => void,
): HTMLSelectElement {
  const select = h("select", {}, ...values.map((value) => h("option", { value }, texts[value])));
  select.addEventListener("change", () => onPick(select.value as T));
  return select;
}

function labelled(label: string, control: HTMLElement): HTMLElement {
  return h("label", { class: "picked" }, h("span", { class: "label muted" }, label), control);
}
