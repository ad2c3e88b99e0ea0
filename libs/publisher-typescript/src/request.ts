/** The requests that the clients make. */

import type { Answer } from "./answers.js";

export interface Api {
  readonly url: string;
  readonly headers: Headers;
  readonly timeoutMs: number;
}

/** An answer, and what it says about itself. */
export interface Reply extends Answer {
  readonly etag?: string | null;
  readonly cacheControl?: string | null;
}

const MAX_BYTES = 1024 * 1024; // a longer body is no answer of ours

/**
 * Return where and how to ask; undefined if address or key are missing or can't be used.
 *
 * The address may have the `path` already.
 */
export function apiAt(
  path: string,
  url: string | undefined,
  key: string | undefined,
  timeoutMs: number,
): Api | undefined {
  if (!url || !/^https?:/.test(url) || !key) return undefined;
  try {
    const address = new URL(url);
    const known = address.pathname.replace(/\/+$/, "");
    const base = known.endsWith(path) ? known.slice(0, -path.length) : known;
    address.pathname = base.replace(/\/+$/, "") + path;
    const { headers } = new Request(address, { headers: { authorization: `Bearer ${key.trim()}` } });
    return { url: address.href, headers, timeoutMs };
  } catch {
    return undefined; // a line break in the key, or a password in the address
  }
}

/**
 * Post a batch and return the answer; never throws.
 *
 * `stop` ends a request that nobody waits for any more.
 */
export function post(api: Api, body: string, stop: AbortSignal): Promise<Answer> {
  const headers = new Headers(api.headers);
  headers.set("content-type", "application/cloudevents-batch+json");
  return exchange(api.url, { method: "POST", headers, body }, api.timeoutMs, stop);
}

/** Send a request and return the answer, without a body of more than `maxBytes`; never throws. */
export async function exchange(
  url: string,
  init: RequestInit,
  timeoutMs: number,
  stop: AbortSignal,
  maxBytes = MAX_BYTES,
): Promise<Reply> {
  const request = new AbortController();
  const abort = () => request.abort();
  const timer = setTimeout(abort, timeoutMs);
  stop.addEventListener("abort", abort);
  if (stop.aborted) abort();
  try {
    const response = await fetch(url, {
      ...init,
      cache: "no-store",
      redirect: "manual", // the key is for this host alone, and a redirected POST becomes a GET
      signal: request.signal,
    });
    return {
      status: response.status,
      retryAfter: response.headers.get("retry-after"),
      etag: response.headers.get("etag"),
      cacheControl: response.headers.get("cache-control"),
      // Read in full, within the timeout: an unread body would keep its connection.
      body: await textOf(response, maxBytes),
    };
  } catch (error) {
    return { status: undefined, cause: request.signal.aborted ? "timeout" : codeOf(error) };
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", abort);
  }
}

/** Return the body, or nothing if it is too long to be one of ours. */
async function textOf(response: Response, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = "";
  for (let bytes = 0; reader !== undefined && bytes <= maxBytes; ) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.length;
    text += decoder.decode(value, { stream: true });
  }
  await reader?.cancel();
  return "";
}

/** Return the system's code of an error of `fetch`, such as ECONNREFUSED. */
function codeOf(error: unknown): string {
  const { code } = (error as { cause?: { code?: unknown } } | null)?.cause ?? {};
  return typeof code === "string" ? code : "network";
}
