/** The one request that the client makes. */

import type { Answer } from "./answers.js";

export interface Api {
  readonly url: string;
  readonly headers: Headers;
  readonly timeoutMs: number;
}

const EVENTS_PATH = "/v1/events";

/**
 * Return where and how to post; undefined if address or key are missing or can't be used.
 *
 * The address may have the path of events already.
 */
export function apiAt(url: string | undefined, key: string | undefined, timeoutMs: number): Api | undefined {
  if (!url || !/^https?:/.test(url) || !key) return undefined;
  try {
    const address = new URL(url);
    address.pathname = address.pathname.replace(/\/*(\/v1\/events\/*)?$/, EVENTS_PATH);
    const { headers } = new Request(address, {
      headers: {
        authorization: `Bearer ${key.trim()}`,
        "content-type": "application/cloudevents-batch+json",
      },
    });
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
export async function post(api: Api, body: string, stop: AbortSignal): Promise<Answer> {
  const request = new AbortController();
  const abort = () => request.abort();
  const timer = setTimeout(abort, api.timeoutMs);
  stop.addEventListener("abort", abort);
  if (stop.aborted) abort();
  try {
    const response = await fetch(api.url, {
      method: "POST",
      headers: api.headers,
      body,
      cache: "no-store",
      redirect: "manual", // the key is for this host alone, and a redirected POST becomes a GET
      signal: request.signal,
    });
    // Read in full, within the timeout: an unread body would keep its connection.
    const text = await response.text();
    return { status: response.status, retryAfter: response.headers.get("retry-after"), body: text };
  } catch (error) {
    return { status: undefined, cause: request.signal.aborted ? "timeout" : codeOf(error) };
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", abort);
  }
}

/** Return the system's code of an error of `fetch`, such as ECONNREFUSED. */
function codeOf(error: unknown): string {
  const { code } = (error as { cause?: { code?: unknown } } | null)?.cause ?? {};
  return typeof code === "string" ? code : "network";
}
