/** Sums of an answer's figures: per day or hour, per server or tool, per meter. */

import { startOf, startsIn, type Span, type Step } from "./ranges.js";
import type { Amount, Run } from "./wire.js";

export const SPLITS = ["none", "server", "tool"] as const;
export type Split = (typeof SPLITS)[number];

/** More colours than these are too alike; the other groups are shown as one. */
export const COLOURS = 5;

/** The runs of one server or tool, over the range and (`values`) in each day or hour of it. */
export interface Group {
  readonly server: string;
  readonly tool: string | null;
  readonly runs: number;
  readonly tokens: number;
  readonly values: readonly number[];
}

export interface Figures {
  /** The starts of the days or hours. */
  readonly starts: readonly number[];
  readonly totals: readonly number[];
  readonly runs: number;
  readonly tokens: number;
  /** Every group, the largest first; none unless the runs are split. */
  readonly groups: readonly Group[];
}

export interface MeterSum {
  readonly meter: string;
  readonly accepted: number;
  readonly waiting: number;
  readonly shadow: number;
  readonly why: readonly Part[];
  /** What the refused part of `why` was refused for. */
  readonly reasons: readonly Part[];
}

/** How much of a sum, by name. */
export type Part = readonly [string, number];

/** Sum the runs of a span. Runs outside of it are left out. */
export function sumRuns(runs: readonly Run[], span: Span, step: Step, split: Split): Figures {
  const starts = startsIn(span, step);
  const positions = new Map(starts.map((start, position) => [start, position]));
  const all = emptyGroup("", null, starts.length);
  const groups = new Map<string, ReturnType<typeof emptyGroup>>();
  for (const run of runs) {
    const position = positions.get(startOf(step, run.start));
    if (position === undefined) continue;
    add(all, run, position);
    if (split === "none") continue;
    const tool = split === "tool" ? run.tool : null;
    const key = JSON.stringify([run.server, tool]);
    const group = groups.get(key) ?? emptyGroup(run.server, tool, starts.length);
    groups.set(key, group);
    add(group, run, position);
  }
  const sorted = [...groups.values()].sort((a, b) => b.runs - a.runs || order(name(a), name(b)));
  return { starts, totals: all.values, runs: all.runs, tokens: all.tokens, groups: sorted };
}

/** Return what the chart stacks: the largest groups, and the values of all others, if there are. */
export function stackOf({ groups, starts }: Figures): { shown: readonly Group[]; others: readonly number[] | null } {
  const shown = groups.slice(0, COLOURS);
  const rest = groups.slice(COLOURS);
  if (rest.length === 0) return { shown, others: null };
  return { shown, others: starts.map((_, n) => rest.reduce((sum, group) => sum + (group.values[n] ?? 0), 0)) };
}

/** Sum the amounts of each meter over the span. */
export function sumAmounts(amounts: readonly Amount[]): MeterSum[] {
  const byMeter = new Map<string, Amount[]>();
  for (const amount of amounts) {
    const known = byMeter.get(amount.meter);
    if (known === undefined) byMeter.set(amount.meter, [amount]);
    else known.push(amount);
  }
  return [...byMeter]
    .sort(([a], [b]) => order(a, b))
    .map(([meter, each]) => ({
      meter,
      accepted: each.reduce((sum, { accepted }) => sum + accepted, 0),
      waiting: each.reduce((sum, { waiting }) => sum + waiting, 0),
      shadow: each.reduce((sum, { shadow }) => sum + shadow, 0),
      why: sumParts(each.map(({ why }) => why)),
      reasons: sumParts(each.map(({ reasons }) => reasons)),
    }));
}

function sumParts(maps: readonly ReadonlyMap<string, number>[]): Part[] {
  const sums = new Map<string, number>();
  for (const [name, part] of maps.flatMap((parts) => [...parts])) sums.set(name, (sums.get(name) ?? 0) + part);
  return [...sums].filter(([, part]) => part !== 0);
}

function emptyGroup(server: string, tool: string | null, length: number) {
  return { server, tool, runs: 0, tokens: 0, values: new Array<number>(length).fill(0) };
}

function add(group: ReturnType<typeof emptyGroup>, run: Run, position: number): void {
  group.runs += run.runs;
  group.tokens += run.tokens;
  group.values[position] = (group.values[position] ?? 0) + run.runs;
}

function name({ server, tool }: { server: string; tool: string | null }): string {
  return JSON.stringify([server, tool]);
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
