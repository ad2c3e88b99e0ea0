/** What differs between Node, Deno, Supabase and Next.js. */

/** A timer that does not keep the process alive. */
export function backgroundTimer(call: () => void, ms: number): ReturnType<typeof setTimeout> {
  const timer: unknown = setTimeout(call, ms);
  if (typeof timer === "object") (timer as { unref?: () => void }).unref?.();
  else (globalThis as Partial<DenoGlobal>).Deno?.unrefTimer?.(timer as number);
  return timer as ReturnType<typeof setTimeout>;
}

export type WaitUntil = (promise: Promise<unknown>) => unknown;

/** Return what keeps an edge function of Supabase alive, if this is one. */
export function edgeWaitUntil(): WaitUntil | undefined {
  const edge = (globalThis as Partial<EdgeGlobal>).EdgeRuntime;
  return edge?.waitUntil === undefined ? undefined : (promise) => edge.waitUntil?.(promise);
}

/** Holds events, which it delivers or reports before the process ends. */
export interface Holder {
  /** The process has nothing left to do: deliver within a deadline, and report the rest. */
  drain(): Promise<void>;
  /** The process ends now: report everything that is left, without waiting. */
  abandon(): void;
}

const holders = new Set<Holder>();
let watching = false;

/** Let the end of the process wait for `holder`, until `release`. */
export function hold(holder: Holder): void {
  holders.add(holder);
  const host = (globalThis as Partial<ProcessGlobal>).process;
  if (watching || typeof host?.on !== "function") return;
  watching = true;
  // One pair of listeners for all publishers. A signal's listener is left to the host: it would
  // change how the process ends.
  host.on("beforeExit", () => holders.forEach((each) => void each.drain()));
  host.on("exit", () => holders.forEach((each) => each.abandon()));
}

export function release(holder: Holder): void {
  holders.delete(holder);
}

interface DenoGlobal {
  Deno: { unrefTimer?: (id: number) => void };
}
interface EdgeGlobal {
  EdgeRuntime: { waitUntil?: WaitUntil };
}
interface ProcessGlobal {
  process: { on?: (event: "beforeExit" | "exit", listener: () => void) => unknown };
}
