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

type Pause = "debounce" | "backoff" | "retry-after" | "held_back";

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

/** A type that the key may not publish: its events wait, and the others go on. */
interface HeldBack {
  readonly failures: number;
  until: number; // of performance.now()
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
  readonly #heldBack = new Map<string, HeldBack>(); // by type
  #eventsPerRequest = MAX_EVENTS_PER_REQUEST; // fewer while a refused event is searched for
  #running = false;
  #hurried = false; // the next request is sent without the debounce
  #pausedBy: Pause | undefined;
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
      problem: this.#problem ?? this.#forbidden(),
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
    if (this.#pausedBy === "held_back") this.#wake();
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
    for (const held of this.#heldBack.values()) held.until = 0;
    if (this.#pausedBy === "backoff" || this.#pausedBy === "held_back") this.#wake();
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
      const now = performance.now();
      const due = this.#due(now);
      if (due.length === 0) {
        const ends = [...this.#heldBack.values()].map(({ until }) => until).filter((until) => until > now);
        await this.#pause(Math.min(...ends) - now, "held_back");
        continue;
      }
      const full = due.length >= this.#eventsPerRequest;
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

  /** The events that are not held back. */
  #due(now: number): WaitingEvent[] {
    return this.#events.filter(({ type }) => (this.#heldBack.get(type)?.until ?? 0) <= now);
  }

  /** The first events that fit into one request. */
  #batch(): WaitingEvent[] {
    let bytes = 0;
    const due = this.#due(performance.now());
    const surplus = due.findIndex((event, index) => {
      bytes += event.bytes + 1;
      return index === this.#eventsPerRequest || (index > 0 && bytes > MAX_BYTES_PER_REQUEST);
    });
    return surplus < 0 ? due : due.slice(0, surplus);
  }

  /** Carry out what follows from the answer; returns when the next request may be made. */
  async #settle(batch: readonly WaitingEvent[], answer: Answer): Promise<void> {
    const next = decide(answer, batch.length);
    switch (next.step) {
      case "confirmed":
        this.#confirmed += this.#remove(batch).length;
        for (const { type } of batch) this.#heldBack.delete(type);
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
      case "hold_back":
        this.#holdBack(batch.filter((_event, index) => next.forbidden.includes(index)));
        this.#failures = 0;
        this.#hurried = true;
        return;
      case "narrow":
        // Smaller requests find the event that is refused. It then waits behind the others.
        this.#eventsPerRequest = Math.ceil(batch.length / 2);
        if (batch.length === 1) this.#events = [...this.#events.filter((event) => event !== batch[0]), ...batch];
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
    this.#expire(this.#events);
    if (this.#events.length === 0) return;

    const { firstRetryMs, longestRetryMs } = this.#limits;
    const ms = backoff(this.#failures, firstRetryMs, longestRetryMs, Math.random());
    if (leastMs <= ms) await this.#pause(ms, "backoff");
    else await this.#pause(leastMs + ms, "retry-after");
    this.#hurried = true;
  }

  /** Have all events of these events' types wait, each type for its own backoff. */
  #holdBack(forbidden: readonly WaitingEvent[]): void {
    const { firstRetryMs, longestRetryMs } = this.#limits;
    for (const type of new Set(forbidden.map((event) => event.type))) {
      const failures = (this.#heldBack.get(type)?.failures ?? 0) + 1;
      const ms = backoff(failures, firstRetryMs, longestRetryMs, Math.random());
      this.#heldBack.set(type, { failures, until: performance.now() + ms });
      if (failures > 1) continue;
      console.warn(`nexus publisher: the events API answers HTTP 403 for ${type}; such events wait in memory`);
    }
    this.#expire(forbidden);
  }

  /** Return why events are held back, if any are. */
  #forbidden(): string | undefined {
    const types = [...this.#heldBack.keys()];
    return types.length > 0 ? `HTTP 403 for ${types.join(", ")}` : undefined;
  }

  /** Lose those that are too old. Only after a failed attempt: a function may have been frozen for long. */
  #expire(events: readonly WaitingEvent[]): void {
    const oldest = performance.now() - this.#limits.maxAgeMs;
    this.#lose(events.filter((event) => event.keptAt < oldest), "expired");
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
  async #pause(ms: number, cause: Pause): Promise<void> {
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
