/** A receiver that behaves as the events API, and as it must not. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo } from "node:net";
import { once } from "node:events";

/** Answers one request. */
export type Behaviour = (batch: readonly SentEvent[], response: ServerResponse) => void;

export interface SentEvent {
  readonly id: string;
  readonly type: string;
  readonly source: string;
  readonly time: string;
  readonly traceparent?: string;
  readonly data: Record<string, unknown>;
  readonly json: string;
}

export class Receiver {
  readonly requests: IncomingMessage[] = [];
  readonly batches: (readonly SentEvent[])[] = [];
  readonly times: number[] = [];
  readonly accepted = new Map<string, string[]>(); // the bytes of each acceptance, by id
  #server: Server | undefined;
  #port = 0;
  #plan: Behaviour[] = [];
  otherwise: Behaviour;

  constructor() {
    this.otherwise = this.accept;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Answer the next requests so, one after the other. */
  next(...behaviours: Behaviour[]): void {
    this.#plan.push(...behaviours);
  }

  readonly accept: Behaviour = (batch, response) => {
    for (const event of batch) {
      this.accepted.set(event.id, [...(this.accepted.get(event.id) ?? []), event.json]);
    }
    response.writeHead(202).end(JSON.stringify({ accepted: batch.length }));
  };

  async start(): Promise<this> {
    this.#server = createServer((request, response) => void this.#answer(request, response));
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port;
    return this;
  }

  /** End as if killed: every connection is cut. */
  async stop(): Promise<void> {
    const closed = this.#server && once(this.#server, "close");
    this.#server?.close();
    this.#server?.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests.push(request);
    this.times.push(performance.now());
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return; // cut off
    }
    const batch = split(Buffer.concat(chunks).toString());
    this.batches.push(batch);
    (this.#plan.shift() ?? this.otherwise)(batch, response);
  }
}

/** Parse a batch, and keep each event's own bytes. */
function split(body: string): SentEvent[] {
  const events = JSON.parse(body) as Omit<SentEvent, "json">[];
  const starts = events.map((event) => body.indexOf(`{"specversion":"1.0","id":"${event.id}"`));
  return events.map((event, index) => ({
    ...event,
    json: body.slice(starts[index], (starts[index + 1] ?? body.length) - 1),
  }));
}

export const status =
  (code: number, headers: Record<string, string> = {}, body = ""): Behaviour =>
  (_batch, response) =>
    void response.writeHead(code, headers).end(body);

/** 400 as the API answers: it names the events that are invalid. */
export const refuse =
  (invalid: (event: SentEvent) => boolean, code = 400): Behaviour =>
  (batch, response) => {
    const errors = batch.flatMap((event, index) =>
      invalid(event) ? [{ index, field: "data.origin", rule: "must be direct, hub or job" }] : [],
    );
    response
      .writeHead(code, { "content-type": "application/problem+json" })
      .end(JSON.stringify({ type: "about:blank", status: code, errors }));
  };

export const reset: Behaviour = (_batch, response) => void response.socket?.resetAndDestroy();

export const neverAnswer: Behaviour = () => undefined;
