/** Events that wait in memory, and the loop that sends them until they are confirmed or lost. */

import { type Answer, backoff, decide, isMisconfiguration } from "./answers.js";
import type { BrokenRule, LossReason, LossReports } from "./losses.js";
import { type Api, post } from "./request.js";
import { backgroundTimer, type Holder, hold, release } from "./runtime.js";

/** An event as it is sent, the same bytes on every attempt. */
export interface WrittenEvent {
  readonly id: string;
  readonly type: string;
  readonly json: string;
  readonly bytes: number;
}

export interface Limits {
  readonly maxBytes: number;
  readonly maxAgeMs: number;
  readonly debounceMs: number;
  readonly firstRetryMs: number;
  readonly longestRetryMs: number;
  readonly closeMs: number;
}

const MAX_EVENTS_PER_REQUEST = 1000;
const MAX_BYTES_PER_REQUEST = 1024 * 1024; // the API takes more, but a slow uplink takes long for it
const MAX_TIMER_MS = 2 ** 31 - 1; // a longer timer ends at once

/** Events between two requests; it is settled when each of them is confirmed or lost. */
class Group {
  left = 0; // events that are neither confirmed nor lost
  settle: () => void = () => undefined;
  readonly settled = new Promise<void>((resolve) => {
    this.settle = resolve;
  });
  settledInTime: Promise<void> | undefined;
}

interface WaitingEvent extends WrittenEvent {
  readonly keptAt: number; // of performance.now()
  readonly group: Group;
}

export class Delivery implements Holder {
  readonly #api: Api;
  readonly #limits: Limits;
  readonly #losses: LossReports;
  readonly #stop = new AbortController();
  readonly #groups = new Set<Group>();
  #group = new Group();
  #events: WaitingEvent[] = [];
  #bytes = 0;
  #confirmed = 0;
  #failures = 0; // in a row
  #problem: string | undefined;
  #eventsPerRequest = MAX_EVENTS_PER_REQUEST; // fewer while a refused event is searched for
  #running = false;
  #hurried = false; // the next request is sent without the debounce
  #pausedBy: "debounce" | "backoff" | "retry-after" | undefined;
  #wake: () => void = () => undefined;
  #ended: LossReason | undefined; // why no more events are kept

  constructor(api: Api, limits: Limits, losses: LossReports) {
    this.#api = api;
    this.#limits = limits;
    this.#losses = losses;
  }

  get status(): { confirmed: number; waiting: number; oldestMs: number; problem: string | undefined } {
    const now = performance.now();
    return {
      confirmed: this.#confirmed,
      waiting: this.#events.length,
      oldestMs: now - this.#events.reduce((oldest, { keptAt }) => Math.min(oldest, keptAt), now),
      problem: this.#problem,
    };
  }

  /** Keep an event until it is confirmed or lost, or return why it can't be kept. */
  keep(event: WrittenEvent): LossReason | undefined {
    if (this.#ended !== undefined) return this.#ended;
    if (this.#bytes + event.bytes > this.#limits.maxBytes) return "memory_full";
    this.#events.push({ ...event, keptAt: performance.now(), group: this.#group });
    this.#bytes += event.bytes;
    this.#group.left += 1;
    this.#groups.add(this.#group);
    hold(this);
    if (!this.#running) void this.#run();
    return undefined;
  }

  /**
   * Return a promise for the latest events: each is confirmed or lost, or `ms` have passed.
   *
   * Events between two requests share it, since each call of the host asks for one.
   */
  latestSettled(ms: number): Promise<void> {
    return (this.#group.settledInTime ??= within(ms, this.#group.settled, backgroundTimer));
  }

  /** Send at once what waits, and wait until all of it is confirmed or lost, `ms` at most. */
  async flush(ms: number): Promise<void> {
    this.#hurried = this.#running;
    if (this.#pausedBy === "debounce") this.#wake();
    const groups = [...this.#groups].map((group) => group.settled);
    this.#group = new Group();
    if (groups.length > 0) await within(ms, Promise.all(groups), setTimeout);
  }

  /** Keep no more events, deliver within `ms`, and report the rest as lost for `reason`. */
  async end(ms: number, reason: LossReason): Promise<void> {
    this.#ended ??= reason;
    if (this.#pausedBy === "backoff") this.#wake();
    await this.flush(ms);
    this.abandon(reason);
  }

  async drain(): Promise<void> {
    await this.end(this.#limits.closeMs, "process_ended");
  }

  abandon(reason: LossReason = "process_ended"): void {
    this.#lose(this.#events, reason);
    this.#losses.report();
    this.#stop.abort();
    this.#wake();
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#events.length > 0) {
      const full = this.#events.length >= this.#eventsPerRequest;
      if (!full && !this.#hurried) await this.#pause(this.#limits.debounceMs, "debounce");
      this.#hurried = false;
      const batch = this.#batch();
      this.#group = new Group();

      const body = `[${batch.map((event) => event.json).join(",")}]`;
      const answer = await post(this.#api, body, this.#stop.signal);

      await this.#settle(batch, answer);
    }
    this.#running = false;
  }

  /** The first events that fit into one request. */
  #batch(): WaitingEvent[] {
    let bytes = 0;
    const surplus = this.#events.findIndex((event, index) => {
      bytes += event.bytes + 1;
      return index === this.#eventsPerRequest || (index > 0 && bytes > MAX_BYTES_PER_REQUEST);
    });
    return surplus < 0 ? [...this.#events] : this.#events.slice(0, surplus);
  }

  /** Carry out what follows from the answer; returns when the next request may be made. */
  async #settle(batch: readonly WaitingEvent[], answer: Answer): Promise<void> {
    const next = decide(answer, batch.length);
    switch (next.step) {
      case "confirmed":
        this.#confirmed += this.#remove(batch).length;
        this.#eventsPerRequest = Math.min(2 * this.#eventsPerRequest, MAX_EVENTS_PER_REQUEST);
        this.#failures = 0;
        this.#problem = undefined;
        return;
      case "set_aside":
        for (const [index, rules] of next.refused) {
          this.#lose(batch.slice(index, index + 1), "refused", rules);
        }
        this.#failures = 0;
        this.#hurried = true;
        return;
      case "narrow":
        // Smaller requests find the event that is refused. It then waits behind the others.
        this.#eventsPerRequest = Math.ceil(batch.length / 2);
        if (batch.length === 1) this.#events.push(...this.#events.splice(0, 1));
        else this.#failures = 0;
        await this.#backOff(answer, 0);
        return;
      case "repeat":
        await this.#backOff(answer, next.leastMs);
    }
  }

  async #backOff(answer: Answer, leastMs: number): Promise<void> {
    this.#failures += 1;
    const problem = answer.status === undefined ? `no answer (${answer.cause})` : `HTTP ${answer.status}`;
    if (problem !== this.#problem && isMisconfiguration(answer)) {
      console.warn(`nexus publisher: the events API answers ${problem}; events wait in memory`);
    }
    this.#problem = problem;
    // After a failed attempt only: a function that was frozen for long sends what it has left.
    const oldest = performance.now() - this.#limits.maxAgeMs;
    this.#lose(this.#events.filter((event) => event.keptAt < oldest), "expired");
    if (this.#events.length === 0) return;

    const { firstRetryMs, longestRetryMs } = this.#limits;
    const ms = backoff(this.#failures, firstRetryMs, longestRetryMs, Math.random());
    if (leastMs <= ms) await this.#pause(ms, "backoff");
    else await this.#pause(leastMs + ms, "retry-after");
    this.#hurried = true;
  }

  #lose(events: readonly WaitingEvent[], reason: LossReason, rules?: readonly BrokenRule[]): void {
    for (const { id, type, json } of this.#remove(events)) {
      this.#losses.add({ id, type, reason, json, ...(rules && { rules }) });
    }
  }

  /** Keep these events no longer; return those of them that were kept. */
  #remove(events: readonly WaitingEvent[]): WaitingEvent[] {
    const leaving = new Set(events);
    const removed = this.#events.filter((event) => leaving.has(event));
    this.#events = this.#events.filter((event) => !leaving.has(event));
    for (const { bytes, group } of removed) {
      this.#bytes -= bytes;
      group.left -= 1;
      if (group.left > 0) continue;
      this.#groups.delete(group);
      if (group === this.#group) this.#group = new Group();
      group.settle();
    }
    if (this.#events.length === 0) release(this);
    return removed;
  }

  /** Wait in the background, until woken. */
  async #pause(ms: number, cause: "debounce" | "backoff" | "retry-after"): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#pausedBy = cause;
    await new Promise<void>((resolve) => {
      const timer = backgroundTimer(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#pausedBy = undefined;
  }
}

/** Wait for `promise`, `ms` at most. */
async function within(
  ms: number,
  promise: Promise<unknown>,
  timer: (call: () => void, ms: number) => ReturnType<typeof setTimeout>,
): Promise<void> {
  await new Promise<void>((resolve) => {
    const deadline = timer(resolve, Math.min(ms, MAX_TIMER_MS));
    void promise.then(() => {
      clearTimeout(deadline);
      resolve();
    });
  });
}
