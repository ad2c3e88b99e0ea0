/** A stand-in for the usage API's entitlements: it answers as a test wants, and keeps requests. */

import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Return an answer that allows everything, but for `changes`. */
export function entitlement(userId: string, changes: object = {}): object {
  return {
    user_id: userId,
    account_id: userId,
    plan: "pro",
    denied: [],
    limits: [],
    rate_limits: [],
    as_of: "2026-03-01T12:00:00Z",
    ...changes,
  };
}

/** Return a hard limit for all tools, of which this much is left. */
export function limitOf(remaining: number): object {
  return { name: "runs", server_id: "*", tool_name: "*", hard: true, remaining };
}

export class UsageApi {
  readonly requests: IncomingMessage[] = [];
  readonly connections = new Set<Socket>();
  maxAge = 30;
  changes: object = {};
  answer: Answer | undefined;
  readonly #server = createServer((request, response) => this.#receive(request, response));

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async start(): Promise<this> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #receive(request: IncomingMessage, response: ServerResponse): void {
    this.requests.push(request);
    this.connections.add(request.socket);
    if (this.answer) return this.answer(request, response);
    if (request.headers.authorization !== "Bearer a-key") return void response.writeHead(401).end();
    const etag = `"${JSON.stringify(this.changes).length}"`;
    const headers = { etag, "cache-control": `private, max-age=${this.maxAge}` };
    if (request.headers["if-none-match"] === etag) return void response.writeHead(304, headers).end();
    response.writeHead(200, headers).end(JSON.stringify(entitlement(userOf(request), this.changes)));
  }
}

export function userOf(request: IncomingMessage): string {
  return request.url?.split("/").at(-1) ?? "";
}
