/** Asks, before a tool runs, whether its user's plan lets it run; it neither throws nor waits long. */

import { Circuit } from "./circuit.js";
import { decide, type Decision, type Entitlement, type Otherwise, readEntitlement, type Why } from "./decision.js";
import { callHost } from "./losses.js";
import { type Api, apiAt, exchange, type Reply } from "./request.js";
import { edgeWaitUntil, type WaitUntil } from "./runtime.js";

export interface EntitlementsOptions {
  /** Address of the usage API, such as `https://usage.example.com`, without `/v1/entitlements`. */
  readonly url: string | undefined;
  /** A service key that may read entitlements. */
  readonly key: string | undefined;
  /** How long a call waits for an answer that is not in the cache: 100 ms. */
  readonly budgetMs?: number;
  /** How long an answer is used after the API's `max-age`, while a new one is fetched: 5 min. */
  readonly staleMs?: number;
  /** How many users' answers are kept: 10,000. */
  readonly maxUsers?: number;
  /** How long an answer is waited for in the background, for the next call: 5 s. */
  readonly requestTimeoutMs?: number;
  /** Keeps a serverless function alive: `after` of Next.js. Supabase's is found without it. */
  readonly waitUntil?: WaitUntil;
}

export interface EntitlementsStatus {
  /** Calls by where the answer came from. */
  readonly calls: Readonly<Record<Source, number>>;
  /** Calls by the reason of the decision. */
  readonly decisions: Readonly<Record<Why, number>>;
  readonly cachedUsers: number;
  /** Why the last request failed: `HTTP 503`, `timeout`, `not_configured`. */
  readonly problem: string | undefined;
}

export type Source =
  | "hit" // from the cache
  | "stale" // from the cache, older than the API wanted, while a new answer is fetched
  | "fetched" // from the API, within the budget
  | "timeout" // none: the budget was over before the API answered
  | "unavailable" // none: the API failed, or was not asked because it fails
  | "invalid"; // none: the arguments can't be used

export interface Entitlements {
  /**
   * Decide whether a tool may run for a user now; without an answer `otherwise` holds.
   *
   * It never throws, and takes `budgetMs` at most. Look at the decision's `allowed`.
   */
  allowed(
    userId: string,
    serverId: string,
    toolName: string,
    options: { readonly otherwise: Otherwise },
  ): Promise<Decision>;
  /** End requests. Later calls are answered from the cache, or have no answer. */
  close(): void;
  status(): EntitlementsStatus;
}

/** Return entitlements; a setting that is missing makes every call one without an answer. */
export function createEntitlements(options: EntitlementsOptions): Entitlements {
  return new HttpEntitlements(options);
}

interface Kept {
  readonly entitlement: Entitlement;
  readonly etag: string | null | undefined;
  readonly freshUntil: number; // of performance.now()
  readonly usableUntil: number;
}

interface Found {
  readonly entitlement?: Entitlement | undefined;
  readonly source: Source;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const MAX_CONNECTIONS = 16;
const MAX_ANSWER_BYTES = 64 * 1024; // thousands of answers are kept
const MAX_FRESH_SECONDS = 300; // a longer max-age is taken for a mistake of a gateway
const MAX_TIMER_MS = 2 ** 31 - 1; // a longer timer ends at once

class HttpEntitlements implements Entitlements {
  readonly #api: Api | undefined;
  readonly #options: Required<Omit<EntitlementsOptions, "url" | "key" | "waitUntil" | "requestTimeoutMs">>;
  readonly #waitUntil: WaitUntil | undefined;
  readonly #cache = new Map<string, Kept>();
  readonly #requests = new Map<string, Promise<Entitlement | undefined>>();
  readonly #circuit = new Circuit();
  readonly #stops = new Set<AbortController>(); // one each: Node warns of a signal with many listeners
  #closed = false;
  readonly #queue: (() => void)[] = []; // requests that wait for one of the connections
  #connections = 0;
  #problem: string | undefined;
  readonly #calls: Record<Source, number> = {
    hit: 0,
    stale: 0,
    fetched: 0,
    timeout: 0,
    unavailable: 0,
    invalid: 0,
  };
  readonly #decisions: Record<Why, number> = {
    allowed: 0,
    denied: 0,
    limit_reached: 0,
    unknown: 0,
    no_answer: 0,
  };

  constructor(options: EntitlementsOptions) {
    const { url, key, requestTimeoutMs = 5_000 } = options;
    this.#api = apiAt("/v1/entitlements", url, key, requestTimeoutMs);
    if (this.#api === undefined) this.#note("not_configured");
    this.#options = {
      budgetMs: options.budgetMs ?? 100,
      staleMs: options.staleMs ?? 300_000,
      maxUsers: options.maxUsers ?? 10_000,
    };
    this.#waitUntil = options.waitUntil;
  }

  async allowed(
    userId: string,
    serverId: string,
    toolName: string,
    options: { readonly otherwise: Otherwise },
  ): Promise<Decision> {
    const otherwise = options?.otherwise === "open" ? "open" : "closed"; // a mistyped choice is none to run
    try {
      const { entitlement, source } = await this.#find(userId, serverId, toolName);
      const decision = decide(entitlement, serverId, toolName, otherwise, source === "stale");
      return this.#count(source, decision);
    } catch {
      return this.#count("invalid", decide(undefined, "", "", otherwise));
    }
  }

  close(): void {
    this.#closed = true;
    this.#stops.forEach((stop) => stop.abort());
  }

  status(): EntitlementsStatus {
    return {
      calls: { ...this.#calls },
      decisions: { ...this.#decisions },
      cachedUsers: this.#cache.size,
      problem: this.#problem,
    };
  }

  #count(source: Source, decision: Decision): Decision {
    this.#calls[source] += 1;
    this.#decisions[decision.why] += 1;
    return decision;
  }

  /** Return what is known about a user, or what the API answers within the budget. */
  async #find(userId: string, serverId: string, toolName: string): Promise<Found> {
    const names = [serverId, toolName];
    if (!UUID.test(userId) || names.some((name) => typeof name !== "string")) return { source: "invalid" };
    const user = userId.toLowerCase();
    const kept = this.#cache.get(user);
    const now = performance.now();
    if (kept && now < kept.freshUntil) return { entitlement: kept.entitlement, source: "hit" };
    const request = this.#join(user);
    const stale = kept && now < kept.usableUntil ? kept.entitlement : undefined;
    const known: Found = { entitlement: stale, source: stale ? "stale" : "unavailable" };
    // An old answer that refuses waits for a new one: the user may have just upgraded.
    if (request === undefined || (stale && decide(stale, serverId, toolName, "closed").allowed)) return known;
    const found = await withinBudget(request, this.#options.budgetMs);
    return stale && found.entitlement === undefined ? known : found;
  }

  /** Return the request for a user, begun now if there is none; undefined while the API is not asked. */
  #join(user: string): Promise<Entitlement | undefined> | undefined {
    const underWay = this.#requests.get(user);
    if (underWay !== undefined) return underWay;
    const mayAsk = this.#circuit.mayAsk(performance.now(), this.#requests.size);
    if (this.#api === undefined || this.#closed || !mayAsk) return undefined;
    const request = this.#fetch(this.#api, user).finally(() => this.#requests.delete(user));
    this.#requests.set(user, request);
    const waitUntil = this.#waitUntil ?? edgeWaitUntil();
    if (waitUntil) callHost(() => waitUntil(request));
    return request;
  }

  /** Fetch and keep an answer; undefined without one that can be used. Never throws. */
  async #fetch(api: Api, user: string): Promise<Entitlement | undefined> {
    const known = this.#cache.get(user);
    const headers = new Headers(api.headers);
    if (known?.etag) headers.set("if-none-match", known.etag);
    const stop = new AbortController();
    this.#stops.add(stop);
    const reply = await this.#onAConnection(api, (timeoutMs) =>
      exchange(`${api.url}/${user}`, { headers }, timeoutMs, stop.signal, MAX_ANSWER_BYTES),
    );
    this.#stops.delete(stop);
    const entitlement = entitlementOf(reply, user, known);
    if (entitlement === undefined) {
      this.#circuit.failed(performance.now(), Math.random(), reply.retryAfter);
      this.#note(problemOf(reply));
      return undefined;
    }
    this.#circuit.succeeded();
    this.#note(undefined);
    const freshUntil = performance.now() + 1000 * freshSeconds(reply.cacheControl);
    const etag = reply.status === 304 ? known?.etag : reply.etag;
    this.#keep(user, { entitlement, etag, freshUntil, usableUntil: freshUntil + this.#options.staleMs });
    return entitlement;
  }

  /** Call `ask` when one of the connections is free, with what is left of the time for an answer. */
  async #onAConnection(api: Api, ask: (timeoutMs: number) => Promise<Reply>): Promise<Reply> {
    const deadline = performance.now() + api.timeoutMs;
    if (this.#connections >= MAX_CONNECTIONS) await new Promise<void>((free) => this.#queue.push(free));
    else this.#connections += 1;
    const left = deadline - performance.now();
    const reply: Reply = left > 0 ? await ask(left) : { status: undefined, cause: "timeout" };
    const next = this.#queue.shift(); // it takes the connection over
    if (next) next();
    else this.#connections -= 1;
    return reply;
  }

  /** Keep an answer; the one that was fetched longest ago makes room for it. */
  #keep(user: string, kept: Kept): void {
    this.#cache.delete(user);
    this.#cache.set(user, kept);
    const [oldest] = this.#cache.keys();
    if (this.#cache.size > this.#options.maxUsers && oldest !== undefined) this.#cache.delete(oldest);
  }

  /** Log a line when requests begin to fail and one when they succeed again. */
  #note(problem: string | undefined): void {
    const before = this.#problem;
    this.#problem = problem;
    if (before === undefined && problem !== undefined) {
      callHost(() => console.error(`nexus entitlements: not answered: ${problem}`));
    } else if (before !== undefined && problem === undefined) {
      callHost(() => console.error("nexus entitlements: answered again"));
    }
  }
}

async function withinBudget(request: Promise<Entitlement | undefined>, ms: number): Promise<Found> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<Found>((resolve) => {
    timer = setTimeout(resolve, Math.min(ms, MAX_TIMER_MS), { source: "timeout" });
  });
  const found = request.then(
    (entitlement): Found => ({ entitlement, source: entitlement ? "fetched" : "unavailable" }),
  );
  try {
    return await Promise.race([found, over]);
  } finally {
    clearTimeout(timer);
  }
}

function entitlementOf(reply: Reply, user: string, known: Kept | undefined): Entitlement | undefined {
  if (reply.status === 304) return known?.entitlement;
  return reply.status === 200 ? readEntitlement(reply.body ?? "", user) : undefined;
}

function problemOf({ status, cause }: Reply): string {
  if (status === undefined) return cause ?? "no answer";
  return status === 200 || status === 304 ? "malformed answer" : `HTTP ${status}`;
}

/** Return for how long an answer with this `Cache-Control` is fresh. */
export function freshSeconds(cacheControl: string | null | undefined): number {
  const directives = (cacheControl ?? "").toLowerCase().split(/[\s,]+/);
  if (directives.includes("no-store") || directives.includes("no-cache")) return 0;
  const maxAge = directives.map((each) => /^max-age=(\d+)$/.exec(each)?.[1]).find((found) => found);
  return Math.min(Number(maxAge ?? 0), MAX_FRESH_SECONDS);
}
