/** Decisions: when the usage API may be asked. */

/** Requests that are under way or wait for a connection; a further user gets no answer. */
export const MAX_REQUESTS = 1000;

/** One user whose answer fails must not keep the others from theirs. */
export const FAILURES_TO_OPEN = 3;

const FIRST_PAUSE_MS = 250;
export const MAX_PAUSE_MS = 10_000;
const MAX_WAIT_MS = 60_000; // a longer Retry-After is taken for a mistake of a gateway

/** Counts failures in a row. While it is open no call waits for an API that does not answer. */
export class Circuit {
  failures = 0;
  openUntil = 0;

  /** Return whether one more request may begin; after a pause one alone tries. */
  mayAsk(now: number, underWay: number): boolean {
    if (this.failures < FAILURES_TO_OPEN) return underWay < MAX_REQUESTS;
    return now >= this.openUntil && underWay === 0;
  }

  succeeded(): void {
    this.failures = 0;
    this.openUntil = 0;
  }

  /**
   * Note a failure; `random` is in [0, 1), and half of each pause depends on it.
   *
   * Requests that began before a pause and end in it are part of the failure that opened it.
   */
  failed(now: number, random: number, retryAfter?: string | null): void {
    if (now < this.openUntil) return;
    const asked = retryAfter && /^\d+$/.test(retryAfter) ? 1000 * Number(retryAfter) : undefined;
    this.failures = Math.max(this.failures + 1, asked === undefined ? 0 : FAILURES_TO_OPEN);
    if (this.failures < FAILURES_TO_OPEN) return;
    const limit = Math.min(FIRST_PAUSE_MS * 2 ** (this.failures - FAILURES_TO_OPEN), MAX_PAUSE_MS);
    this.openUntil = now + Math.max((limit * (1 + random)) / 2, Math.min(asked ?? 0, MAX_WAIT_MS));
  }
}
