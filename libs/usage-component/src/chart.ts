/** The chart: stacked bars per day or hour, read by pointer or by the arrow keys. */

import uPlot from "uplot";

import { h } from "./dom.js";
import { stackOf, type Figures } from "./figures.js";
import type { Formats } from "./formats.js";
import type { Step } from "./ranges.js";
import type { Texts } from "./texts.js";

const TICK_PIXELS = 60;
const STRIDES: Readonly<Record<Step, readonly number[]>> = { day: [1, 2, 7, 14, 28], hour: [1, 3, 6, 12, 24] };
const WHOLE_NUMBERS = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((n) => n * 10 ** power)).flat();
const AXIS_PIXELS = 26;

/** What the chart needs to know of its place. */
interface Surroundings {
  readonly texts: Texts;
  readonly formats: Formats;
  /** Called with the position that is read, or null when none is. */
  readonly onRead: (position: number | null) => void;
  /** One position's figures in words. */
  readonly describe: (position: number) => string;
}

export class Chart {
  readonly element: HTMLElement;
  readonly #around: Surroundings;
  readonly #colours: Readonly<Record<string, HTMLElement>>;
  readonly #resized = new ResizeObserver(() => this.#resize());
  #figures: Figures | null = null;
  #step: Step = "day";
  #plot: uPlot | null = null;
  #position: number | null = null;

  constructor(around: Surroundings) {
    this.#around = around;
    const names = ["series-1", "series-2", "series-3", "series-4", "series-5", "series-others", "axis", "grid", "gap"];
    this.#colours = Object.fromEntries(names.map((name) => [name, h("span", { class: `probe ${name}` })]));
    this.element = h(
      "div",
      {
        // A slider over the days: a screen reader passes it the arrow keys, and reads its value.
        role: "slider",
        class: "plot",
        part: "chart",
        tabindex: 0,
        "aria-label": `${around.texts.chart}. ${around.texts.chartHint}`,
        "aria-orientation": "horizontal",
        "aria-valuemin": 1,
      },
      ...Object.values(this.#colours),
    );
    this.element.addEventListener("keydown", (event) => this.#pressed(event));
    this.element.addEventListener("focus", () => this.#focused());
    this.element.addEventListener("blur", () => this.#read(null));
    this.#resized.observe(this.element);
  }

  show(figures: Figures, step: Step): void {
    this.#figures = figures;
    this.#step = step;
    this.#position = null;
    this.#describe();
    this.redraw();
  }

  /** Forget the figures: nothing of them stays, not even where nobody sees it. */
  clear(): void {
    this.#figures = null;
    this.#position = null;
    this.#describe();
    this.redraw();
  }

  /** Draw again, as after a change of colours. */
  redraw(): void {
    this.#plot?.destroy();
    this.#plot = null;
    const { clientWidth: width, clientHeight: height } = this.element;
    if (this.#figures === null || width === 0 || height === 0) return;
    const { data, series } = this.#stacked(this.#figures);
    this.#plot = new uPlot(this.#options(width, height, series, this.#figures.starts), data, this.element);
  }

  close(): void {
    this.#resized.disconnect();
    this.#plot?.destroy();
  }

  /** Each series is drawn as high as itself and all below it, the highest first. */
  #stacked(figures: Figures): { data: uPlot.AlignedData; series: uPlot.Series[] } {
    const { shown, others } = stackOf(figures);
    const layers = shown.map(({ values }, n) => ({ values, colour: `series-${n + 1}` }));
    if (others !== null) layers.push({ values: others, colour: "series-others" });
    if (layers.length === 0) layers.push({ values: figures.totals, colour: "series-1" });
    const paths = uPlot.paths.bars!({ size: [0.74, 44] });
    let below = figures.starts.map(() => 0);
    const data: number[][] = [];
    const series: uPlot.Series[] = [];
    for (const { values, colour } of layers) {
      below = below.map((height, n) => height + (values[n] ?? 0));
      data.unshift(below);
      const options = { fill: this.#colour(colour), stroke: this.#colour("gap"), width: 0.5 };
      series.unshift({ ...options, paths, points: { show: false } });
    }
    return { data: [figures.starts.map((_, n) => n), ...data], series: [{}, ...series] };
  }

  #options(width: number, height: number, series: uPlot.Series[], starts: readonly number[]): uPlot.Options {
    const { formats } = this.#around;
    const axis: uPlot.Axis = {
      font: `11px ${getComputedStyle(this.element).fontFamily}`,
      stroke: this.#colour("axis"),
      ticks: { show: false },
    };
    return {
      width,
      height,
      series,
      legend: { show: false },
      padding: [8, TICK_PIXELS / 3, 0, 0],
      scales: {
        x: { time: false, range: [-0.5, starts.length - 0.5] },
        y: { range: (_, __, most) => [0, Math.max(1, most * 1.04)] },
      },
      axes: [
        {
          ...axis,
          size: AXIS_PIXELS,
          gap: 6,
          grid: { show: false },
          splits: (plot) => ticksOf(starts, this.#step, plot.width),
          values: (_, positions) => positions.map((n) => formats.tick(starts[n] ?? 0, this.#step)),
        },
        {
          ...axis,
          gap: 8,
          grid: { stroke: this.#colour("grid"), width: 1 },
          incrs: WHOLE_NUMBERS,
          space: 36,
          size: (_, labels) => 16 + 6.5 * Math.max(1, ...(labels ?? []).map((label) => label.length)),
          values: (_, values) => values.map((value) => formats.compact(value)),
        },
      ],
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
      hooks: { setCursor: [(plot) => this.#pointed(plot.cursor.idx ?? null)] },
    };
  }

  #colour(name: string): string {
    const probe = this.#colours[name];
    return probe === undefined ? "" : getComputedStyle(probe).color;
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (this.#plot === null) this.redraw();
    else if (width > 0 && (width !== this.#plot.width || height !== this.#plot.height)) {
      this.#plot.setSize({ width, height });
    }
  }

  #pressed(event: KeyboardEvent): void {
    const last = (this.#figures?.starts.length ?? 0) - 1;
    const now = this.#position ?? last;
    const moves: Readonly<Record<string, number>> = {
      ArrowLeft: now - 1,
      ArrowDown: now - 1,
      ArrowRight: now + 1,
      ArrowUp: now + 1,
      PageDown: now - 7,
      PageUp: now + 7,
      Home: 0,
      End: last,
    };
    const next = moves[event.key];
    if (next === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#read(Math.min(Math.max(next, 0), last));
  }

  #focused(): void {
    if (this.#position === null && this.#figures !== null) this.#read(this.#figures.starts.length - 1);
  }

  /** Read a position that a key chose. */
  #read(position: number | null): void {
    this.#pointed(position);
    const left = position === null ? -10 : (this.#plot?.valToPos(position, "x") ?? -10);
    this.#plot?.setCursor({ left, top: position === null ? -10 : 0 }, false);
  }

  #pointed(position: number | null): void {
    if (position === this.#position) return;
    this.#position = position;
    this.#describe();
    this.#around.onRead(position);
  }

  #describe(): void {
    const starts = this.#figures?.starts.length ?? 0;
    const position = this.#position ?? starts - 1;
    this.element.setAttribute("aria-valuemax", String(starts));
    this.element.setAttribute("aria-valuenow", String(position + 1));
    this.element.setAttribute("aria-valuetext", starts === 0 ? "" : this.#around.describe(position));
  }
}

/** Return the positions that have a label: as many as fit, on days or hours that are easy to read. */
export function ticksOf(starts: readonly number[], step: Step, width: number): number[] {
  const fitting = Math.max(1, Math.floor(width / TICK_PIXELS));
  const strides = STRIDES[step];
  const stride = strides.find((each) => starts.length / each <= fitting) ?? strides.at(-1) ?? 1;
  const length = step === "day" ? 86_400_000 : 3_600_000;
  // Hours are counted from midnight, days from the last one.
  const first = step === "hour" ? 0 : (starts.at(-1) ?? 0) / length;
  return starts.flatMap((start, n) => ((start / length - first) % stride === 0 ? [n] : []));
}
