/** Numbers and times in the page's language; days and hours are UTC's, as usage is billed. */

import type { Step } from "./ranges.js";
import { fill, type Plural } from "./texts.js";

/** How amounts of a meter are shown. A unit `micro-USD` is shown in dollars. */
export interface Meter {
  readonly name?: string;
  readonly unit?: string;
}

export type Meters = ReadonlyMap<string, Meter>;

/** Join what the service says of meters and what the page says, which has precedence. */
export function metersOf(answered: Meters, given: Readonly<Record<string, Meter>>): Meters {
  const joined = new Map(answered);
  for (const [name, meter] of Object.entries(given)) joined.set(name, { ...joined.get(name), ...meter });
  return joined;
}

const UTC = { timeZone: "UTC" } as const;

export class Formats {
  readonly #language: string | undefined;
  readonly #number: Intl.NumberFormat;
  readonly #compact: Intl.NumberFormat;
  readonly #percent: Intl.NumberFormat;
  readonly #plural: Intl.PluralRules;
  readonly #day: Intl.DateTimeFormat;
  readonly #dayOfWeek: Intl.DateTimeFormat;
  readonly #date: Intl.DateTimeFormat;
  readonly #hour: Intl.DateTimeFormat;
  readonly #moment: Intl.DateTimeFormat;

  /** A language that no browser knows counts as none given. */
  constructor(language: string | undefined) {
    this.#language = known(language);
    const dates = (options: Intl.DateTimeFormatOptions) =>
      new Intl.DateTimeFormat(this.#language, { ...UTC, ...options });
    this.#number = new Intl.NumberFormat(this.#language);
    this.#compact = new Intl.NumberFormat(this.#language, { notation: "compact" });
    this.#percent = new Intl.NumberFormat(this.#language, { style: "percent", ...digits(1) });
    this.#plural = new Intl.PluralRules(this.#language);
    this.#day = dates({ day: "numeric", month: "short" });
    this.#dayOfWeek = dates({ weekday: "short", day: "numeric", month: "short" });
    this.#date = dates({ day: "numeric", month: "short", year: "numeric" });
    this.#hour = dates({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    this.#moment = dates({ dateStyle: "medium", timeStyle: "short" });
  }

  number(value: number): string {
    return this.#number.format(value);
  }

  /** For the chart's axis. */
  compact(value: number): string {
    return this.#compact.format(value);
  }

  share(part: number, whole: number): string {
    return this.#percent.format(whole === 0 ? 0 : part / whole);
  }

  count(texts: Plural, value: number): string {
    return fill(texts[this.#plural.select(value)] ?? texts.other, { n: this.number(value) });
  }

  /** An amount of a meter in its unit. */
  amount(value: number, { unit }: Meter = {}): string {
    const currency = /^micro-([A-Z]{3})$/.exec(unit ?? "")?.[1];
    if (currency === undefined) return this.number(value);
    // To the micro-unit, so that nothing that is left or waits is rounded to nothing.
    const options = { style: "currency", currency, ...digits(4), maximumFractionDigits: 6 } as const;
    return new Intl.NumberFormat(this.#language, options).format(`${value}E-6` as `${number}`); // exact
  }

  /** A day or an hour as a row's heading. */
  start(time: number, step: Step): string {
    const day = this.#dayOfWeek.format(time);
    return step === "day" ? day : `${day}, ${this.#hour.format(time)}`;
  }

  /** A day, or an hour that is not midnight, for the chart's axis. */
  tick(time: number, step: Step): string {
    return step === "hour" && time % 86_400_000 !== 0 ? this.#hour.format(time) : this.#day.format(time);
  }

  date(time: number): string {
    return this.#date.format(time);
  }

  dates(first: number, last: number): string {
    return `${this.#date.formatRange(first, last)} UTC`;
  }

  moment(time: number): string {
    return `${this.#moment.format(time)} UTC`;
  }
}

/** As many digits for every figure of a column, which thus stand under each other. */
function digits(number: number): Intl.NumberFormatOptions {
  return { minimumFractionDigits: number, maximumFractionDigits: number };
}

function known(language: string | undefined): string | undefined {
  try {
    return Intl.getCanonicalLocales(language)[0];
  } catch {
    return undefined;
  }
}
