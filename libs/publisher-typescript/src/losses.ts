/** What was lost, why, and how the host learns of it. */

export type LossReason =
  | "not_configured" // `url`, `key` or `source` is missing or can't be used
  | "not_serializable" // the data can't be written as JSON, or the time is invalid
  | "too_large" // larger than the API takes
  | "memory_full" // `maxBytes` of events wait already
  | "refused" // the API names the event as invalid
  | "expired" // not confirmed within `maxAgeMs`
  | "closed" // published after `close`, or not confirmed within its deadline
  | "process_ended"; // not confirmed when the process ended

/** One field that the API refused, and the rule that it broke. */
export interface BrokenRule {
  readonly field: string;
  readonly rule: string;
}

export interface LostEvent {
  readonly id: string;
  /** Such as `tool.executed.v2`; version 1's if the event could not be written. */
  readonly type: string;
  readonly reason: LossReason;
  /** Why the API refused it. */
  readonly rules?: readonly BrokenRule[];
  /**
   * The event as it would have been sent: what the host stores to send it later. It may contain
   * personal data. Absent if the event could not be written.
   */
  readonly json?: string;
}

/** Call the host's code, and ignore what it throws or rejects: it must not disturb the delivery. */
export function callHost(call: () => unknown): void {
  try {
    Promise.resolve(call()).catch(() => undefined);
  } catch {
    // ignored, as a rejection is
  }
}

/** Collects losses and reports those of one moment in one call. */
export class LossReports {
  readonly #onLost: (lost: readonly LostEvent[]) => unknown;
  readonly #counts = new Map<LossReason, number>();
  #waiting: LostEvent[] = [];
  #reporting = false;

  constructor(onLost: ((lost: readonly LostEvent[]) => unknown) | undefined) {
    this.#onLost = onLost ?? logger();
  }

  get counts(): Readonly<Partial<Record<LossReason, number>>> {
    return Object.fromEntries(this.#counts);
  }

  add(lost: LostEvent): void {
    this.#counts.set(lost.reason, (this.#counts.get(lost.reason) ?? 0) + 1);
    // A callback that publishes what it was called with would be called without end.
    if (this.#reporting) return;
    if (this.#waiting.push(lost) === 1) setTimeout(() => this.report(), 0);
  }

  /** Report at once what was not reported yet. */
  report(): void {
    const lost = this.#waiting;
    this.#waiting = [];
    if (lost.length === 0) return;
    this.#reporting = true;
    callHost(() => this.#onLost(lost));
    this.#reporting = false;
  }
}

const LOG_INTERVAL_MS = 10_000; // for each reason

/** Return a callback that logs how many events were lost and why, and none of their values. */
function logger(): (lost: readonly LostEvent[]) => void {
  const totals = new Map<LossReason, number>();
  const silentUntil = new Map<LossReason, number>();
  return (lost) => {
    for (const { reason } of lost) totals.set(reason, (totals.get(reason) ?? 0) + 1);
    for (const reason of new Set(lost.map((each) => each.reason))) {
      if (performance.now() < (silentUntil.get(reason) ?? 0)) continue;
      console.error(`nexus publisher: ${totals.get(reason)} events lost so far: ${reason}`);
      silentUntil.set(reason, performance.now() + LOG_INTERVAL_MS);
    }
  };
}
