/** Ranges of time and their days or hours, all in UTC as usage is billed. */

export const RANGES = ["7d", "30d", "90d", "period"] as const;
export type Range = (typeof RANGES)[number];
export const STEPS = ["day", "hour"] as const;
export type Step = (typeof STEPS)[number];

/** Milliseconds since 1970: from the first, up to but without the second. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const DAYS = { "7d": 7, "30d": 30, "90d": 90 } as const;

/** The hours of more days than seven are bars too thin to be seen. */
export function hoursFit(range: Range): boolean {
  return range === "7d";
}

/** Return the span of a range. It ends with `now`'s day, or with its hour if hours are shown. */
export function spanOf(range: Range, step: Step, now: number, period: Span): Span {
  const tomorrow = startOf("day", now) + DAY;
  const end = step === "hour" ? startOf("hour", now) + HOUR : tomorrow;
  if (range !== "period") return { from: tomorrow - DAYS[range] * DAY, to: end };
  return { from: period.from, to: Math.max(Math.min(period.to, end), period.from + 1) };
}

/** Return the UTC month of `now`: the period of an account that Stripe has no period for. */
export function monthOf(now: number): Span {
  const date = new Date(now);
  const start = (months: number) => Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + months);
  return { from: start(0), to: start(1) };
}

/** Return the start of the UTC day or hour of `time`. */
export function startOf(step: Step, time: number): number {
  const length = step === "day" ? DAY : HOUR;
  return Math.floor(time / length) * length;
}

/** Return the end of the last UTC day or hour of a span that ends with `time`. */
export function endOf(step: Step, time: number): number {
  return -startOf(step, -time);
}

/** Return the start of each day or hour that the span touches. */
export function startsIn({ from, to }: Span, step: Step): number[] {
  const length = step === "day" ? DAY : HOUR;
  const first = startOf(step, from);
  return Array.from({ length: (endOf(step, to) - first) / length }, (_, n) => first + n * length);
}
