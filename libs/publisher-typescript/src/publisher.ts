/** The publisher: it takes events at once, and neither throws into its host nor makes it wait. */

import { Delivery, type WrittenEvent } from "./delivery.js";
import type { ToolExecutedV1, ToolExecutedV2, UserCreatedV1, UserCreatedV2, UserUpdatedV1 } from "./events.js";
import { callHost, type LossReason, LossReports, type LostEvent } from "./losses.js";
import { apiAt } from "./request.js";
import { edgeWaitUntil, type WaitUntil } from "./runtime.js";
import { type Occurrence, typeOf } from "./versions.js";

export interface PublisherOptions {
  /** Address of the events API, such as `https://metering.example.com`, without `/v1/events`. */
  readonly url: string | undefined;
  /** The API key. */
  readonly key: string | undefined;
  /** The name of this publisher, always the same. */
  readonly source: string | undefined;
  /** Called with what was lost; logs how many and why by default. It may throw. */
  readonly onLost?: (lost: readonly LostEvent[]) => unknown;
  /** Keeps a serverless function alive: `after` of Next.js. Supabase's is found without it. */
  readonly waitUntil?: WaitUntil;
  /** For how long `waitUntil` is asked to keep the function alive for an event: 10 s. */
  readonly waitUntilMs?: number;
  /** How long the first event of a batch waits for others: 50 ms. */
  readonly debounceMs?: number;
  /** Events that wait in memory, in bytes of JSON: 16 MiB. Beyond, new ones are lost. */
  readonly maxBytes?: number;
  /** How long an event is retried before it is lost: 1 h. */
  readonly maxAgeMs?: number;
  /** How long an answer is waited for: 10 s. */
  readonly requestTimeoutMs?: number;
  /** The longest wait before the first retry, doubled with each failure: 250 ms. */
  readonly firstRetryMs?: number;
  /** The longest wait before any retry: 30 s. */
  readonly longestRetryMs?: number;
  /** How long `close`, and a process that ends, deliver what is left: 5 s. */
  readonly closeMs?: number;
}

export interface EventOptions {
  /** A UUID; the same for each call about one run, if there may be several. Random by default. */
  readonly id?: string;
  /** When it happened; now by default. */
  readonly time?: Date;
  /** W3C Trace Context of what happened: `00-<trace id>-<span id>-<flags>`. */
  readonly traceparent?: string;
}

export type Receipt =
  | { readonly id: string; readonly state: "in_memory" }
  | { readonly id: string; readonly state: "dropped"; readonly reason: LossReason };

/** Counts events: `recorded` is `confirmed`, `waiting` and `lost` together. */
export interface PublisherStatus {
  readonly recorded: number;
  readonly confirmed: number;
  readonly waiting: number;
  readonly lost: Readonly<Partial<Record<LossReason, number>>>;
  /** Age of the oldest event that waits. */
  readonly oldestMs: number;
  /** Why the last attempt failed: `HTTP 503`, `no answer`. */
  readonly problem: string | undefined;
}

export interface Publisher {
  /** Publish a tool run: version 2 if it has a field that version 1 has not, such as `model`. */
  toolExecuted(data: ToolExecutedV1 | ToolExecutedV2, options?: EventOptions): Receipt;
  /**
   * Publish a new user: version 2 if `email` is absent or `stripe_customer_id` present.
   *
   * Link no customer whose usage another way still reports: it would be billed twice.
   */
  userCreated(data: UserCreatedV1 | UserCreatedV2, options?: EventOptions): Receipt;
  /** Publish what is new about a user; a field that is absent stays as it is. */
  userUpdated(data: UserUpdatedV1, options?: EventOptions): Receipt;
  /** Wait until all events so far are confirmed or lost, 5 s by default; return how many still wait. */
  flush(deadlineMs?: number): Promise<number>;
  /** Deliver what waits, within `closeMs` by default, report the rest as lost, take no more events. */
  close(deadlineMs?: number): Promise<void>;
  status(): PublisherStatus;
}

const MAX_EVENT_BYTES = 256 * 1024; // of the contracts
const FLUSH_MS = 5_000;

/** Return a publisher; a setting that is missing makes it report every event as lost. */
export function createPublisher(options: PublisherOptions): Publisher {
  return new HttpPublisher(options);
}

class HttpPublisher implements Publisher {
  readonly #source: string;
  readonly #losses: LossReports;
  readonly #delivery: Delivery | undefined;
  readonly #waitUntil: WaitUntil | undefined;
  readonly #waitUntilMs: number;
  readonly #closeMs: number;
  #recorded = 0;

  constructor(options: PublisherOptions) {
    this.#source = options.source ?? "";
    this.#losses = new LossReports(options.onLost);
    this.#waitUntil = options.waitUntil;
    this.#waitUntilMs = options.waitUntilMs ?? 10_000;
    this.#closeMs = options.closeMs ?? 5_000;
    const api = apiAt("/v1/events", options.url, options.key, options.requestTimeoutMs ?? 10_000);
    if (api === undefined || !this.#source) return;
    this.#delivery = new Delivery(
      api,
      {
        maxBytes: options.maxBytes ?? 16 * 1024 * 1024,
        maxAgeMs: options.maxAgeMs ?? 3_600_000,
        debounceMs: options.debounceMs ?? 50,
        firstRetryMs: options.firstRetryMs ?? 250,
        longestRetryMs: options.longestRetryMs ?? 30_000,
        closeMs: this.#closeMs,
      },
      this.#losses,
    );
  }

  toolExecuted(data: ToolExecutedV1 | ToolExecutedV2, options?: EventOptions): Receipt {
    return this.#record({ name: "tool.executed", data }, options);
  }

  userCreated(data: UserCreatedV1 | UserCreatedV2, options?: EventOptions): Receipt {
    return this.#record({ name: "user.created", data }, options);
  }

  userUpdated(data: UserUpdatedV1, options?: EventOptions): Receipt {
    return this.#record({ name: "user.updated", data }, options);
  }

  async flush(deadlineMs = FLUSH_MS): Promise<number> {
    await this.#delivery?.flush(deadlineMs);
    return this.status().waiting;
  }

  async close(deadlineMs = this.#closeMs): Promise<void> {
    await this.#delivery?.end(deadlineMs, "closed");
    this.#losses.report();
  }

  status(): PublisherStatus {
    const nothing = { confirmed: 0, waiting: 0, oldestMs: 0, problem: undefined };
    const delivery = this.#delivery?.status ?? nothing;
    return { recorded: this.#recorded, lost: this.#losses.counts, ...delivery };
  }

  #record(occurrence: Occurrence, options?: EventOptions): Receipt {
    this.#recorded += 1;
    const id = options?.id ?? crypto.randomUUID();
    const event = write(id, this.#source, occurrence, options);
    const reason = this.#keep(event);
    if (reason !== undefined) {
      const type = event?.type ?? `${occurrence.name}.v1`;
      this.#losses.add({ id, type, reason, ...(event && { json: event.json }) });
      return { id, state: "dropped", reason };
    }
    this.#extendHost();
    return { id, state: "in_memory" };
  }

  /** Keep an event, or return why that can't be. */
  #keep(event: WrittenEvent | undefined): LossReason | undefined {
    if (this.#delivery === undefined) return "not_configured";
    if (event === undefined) return "not_serializable";
    if (event.bytes > MAX_EVENT_BYTES) return "too_large";
    return this.#delivery.keep(event);
  }

  /** Let the function that recorded an event live until it is delivered, or for `waitUntilMs`. */
  #extendHost(): void {
    const waitUntil = this.#waitUntil ?? edgeWaitUntil();
    const settled = waitUntil && this.#delivery?.latestSettled(this.#waitUntilMs);
    if (settled) callHost(() => waitUntil(settled));
  }
}

const encoder = new TextEncoder();

/** Write an event as it will be sent; undefined if its data or its time can't be written. */
function write(
  id: string,
  source: string,
  occurrence: Occurrence,
  options: EventOptions | undefined,
): WrittenEvent | undefined {
  try {
    const type = typeOf(occurrence);
    const json = JSON.stringify({
      specversion: "1.0",
      id,
      source,
      type,
      time: (options?.time ?? new Date()).toISOString(),
      traceparent: options?.traceparent,
      datacontenttype: "application/json",
      data: occurrence.data,
    });
    const { length: bytes } = encoder.encode(json);
    return { id, type, json, bytes };
  } catch {
    return undefined; // a cycle, a BigInt, a getter that throws, an invalid date
  }
}
