/** The element `<nexus-usage>`: its attributes, its token, and what it reads when. */

import { readData, type Answer, type Data } from "./client.js";
import type { Choice } from "./controls.js";
import { SPLITS } from "./figures.js";
import { Formats, type Meter } from "./formats.js";
import { RANGES, STEPS } from "./ranges.js";
import { styleSheets } from "./styles.js";
import { ENGLISH, type Texts } from "./texts.js";
import { subjectOf } from "./token.js";
import { View, type Phase } from "./view.js";

/** Returns a fresh token for the user who is signed in to the page. */
export type TokenProvider = () => string | Promise<string>;

/** How long the page may take to give a token. */
const TOKEN_MS = 20_000;

// On a server, where a framework renders the page before a browser has it, there are no elements.
const Base: typeof HTMLElement = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

/**
 * A user's usage: runs, limits, and what the account is billed for.
 *
 * Fires `nexus-usage-token` when it needs a token and has no `tokenProvider`. The page answers by
 * setting `token`; if later than at once, it calls `preventDefault`, and the element waits.
 */
export class NexusUsage extends Base {
  static readonly observedAttributes = ["src", "token", "account", "range", "step", "split", "theme", "lang"];

  #token: string | null = null;
  #tokenProvider: TokenProvider | null = null;
  #texts: Partial<Texts> = {};
  #meters: Readonly<Record<string, Meter>> = {};
  #view: View | null = null;
  #choice: Choice = { range: "30d", step: "day", split: "server" };
  #phase: Phase = { kind: "loading" };
  #data: Data | null = null;
  #reading: AbortController | null = null;
  #planned: { readonly view: boolean; readonly data: boolean } | null = null;
  /** True from firing the event until a token was good: a page whose tokens are bad is asked once. */
  #fired = false;
  #darkScheme: MediaQueryList | null = null;
  readonly #onScheme = (): void => this.#view?.colour(this.#dark());

  /** The token that the page's backend signed for the user. It is sent in a header only. */
  get token(): string | null {
    return this.#token;
  }

  set token(token: string | null) {
    this.#token = token === "" ? null : token;
    if (this.#token === null) this.#forget(); // who signs out leaves no figures behind
    this.#plan({ data: true });
  }

  get tokenProvider(): TokenProvider | null {
    return this.#tokenProvider;
  }

  set tokenProvider(provider: TokenProvider | null) {
    if (this.#tokenProvider !== null && this.#tokenProvider !== provider) {
      this.#token = null; // another provider may be another user's
      this.#forget();
    }
    this.#tokenProvider = provider;
    this.#plan({ data: true });
  }

  /** Texts in place of the English ones. */
  get texts(): Partial<Texts> {
    return this.#texts;
  }

  set texts(texts: Partial<Texts>) {
    this.#texts = texts;
    this.#plan({ view: true });
  }

  /** Names and units of meters, by the meter's name in the answers. */
  get meters(): Readonly<Record<string, Meter>> {
    return this.#meters;
  }

  set meters(meters: Readonly<Record<string, Meter>>) {
    this.#meters = meters ?? {}; // of a page without types
    this.#plan({ view: true });
  }

  /** Read the figures again. */
  refresh(): void {
    this.#fired = false;
    this.#plan({ data: true });
  }

  connectedCallback(): void {
    for (const name of ["token", "tokenProvider", "texts", "meters"]) this.#upgrade(name);
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = styleSheets();
    this.#darkScheme = matchMedia("(prefers-color-scheme: dark)");
    this.#darkScheme.addEventListener("change", this.#onScheme);
    this.#plan({ view: true, data: true });
  }

  disconnectedCallback(): void {
    this.#reading?.abort();
    this.#darkScheme?.removeEventListener("change", this.#onScheme);
    this.#view?.close();
    this.#view = null;
  }

  attributeChangedCallback(name: string, before: string | null, value: string | null): void {
    if (before === value) return;
    if (name === "token") this.token = value;
    else if (name === "theme") this.#onScheme();
    else if (name === "lang") this.#plan({ view: true });
    else if (name === "split") this.#choose({ split: oneOf(SPLITS, value, "server") });
    else if (name === "range") this.#choose({ range: oneOf(RANGES, value, "30d") });
    else if (name === "step") this.#choose({ step: oneOf(STEPS, value, "day") });
    else {
      this.#forget(); // another service's or another account's
      this.#plan({ data: true });
    }
  }

  /** A property that was set before this class was known hides the class's own. */
  #upgrade(name: string): void {
    if (!Object.hasOwn(this, name)) return;
    const value: unknown = Reflect.get(this, name);
    Reflect.deleteProperty(this, name);
    Reflect.set(this, name, value);
  }

  #choose(choice: Partial<Choice>): void {
    const before = this.#choice;
    this.#choice = { ...before, ...choice };
    if (this.#choice.range !== before.range || this.#choice.step !== before.step) this.#plan({ data: true });
    else this.#show();
  }

  /** Make the view anew or read again, once for all changes of this moment. */
  #plan({ view = false, data = false }: { view?: boolean; data?: boolean }): void {
    if (!this.isConnected) return;
    if (this.#planned === null) queueMicrotask(() => this.#carryOut());
    this.#planned = { view: view || (this.#planned?.view ?? false), data: data || (this.#planned?.data ?? false) };
  }

  #carryOut(): void {
    const planned = this.#planned;
    this.#planned = null;
    if (planned === null || !this.isConnected) return;
    if (planned.view || this.#view === null) this.#makeView();
    if (planned.data) void this.#read();
    else this.#show();
  }

  #makeView(): void {
    this.#view?.close();
    const texts = { ...ENGLISH, ...this.#texts };
    const formats = new Formats(this.#language());
    this.#view = new View(
      { texts, formats, meters: this.#meters },
      { onChoice: (choice) => this.#choose(choice), onReload: () => this.refresh() },
    );
    this.shadowRoot?.replaceChildren(this.#view.element);
    this.#onScheme();
  }

  /** Read the figures, with a fresh token if the present one is refused. */
  async #read(): Promise<void> {
    this.#reading?.abort();
    const { signal } = (this.#reading = new AbortController());
    this.#show({ kind: "loading" });
    for (let asked = false; ; ) {
      if (this.#token === null && !asked) {
        asked = true;
        await this.#askForToken(signal);
        if (signal.aborted) return;
      }
      const token = this.#token;
      if (token === null) return this.#show({ kind: "expired" });
      const outcome = await this.#readWith(token, signal);
      if (signal.aborted) return;
      if (outcome.kind === "failed") return this.#show(outcome);
      if (outcome.kind === "read") {
        this.#fired = false;
        this.#data = outcome.value;
        return this.#show({ kind: "ready" });
      }
      if (this.#token === token) this.#token = null; // and not one that the page has just set
    }
  }

  async #readWith(token: string, signal: AbortSignal): Promise<Answer<Data>> {
    const base = baseOf(this.getAttribute("src") ?? "");
    const user = subjectOf(token);
    if (base === null) return { kind: "failed", reason: "absent" };
    if (user === null) return { kind: "failed", reason: "token" };
    if (this.#data !== null && this.#data.usage.userId !== user) this.#forget();
    return readData({ base, token, user, account: this.getAttribute("account") }, this.#choice, Date.now(), signal);
  }

  /** Ask the page for a token; it gives one now, later, or not. */
  async #askForToken(signal: AbortSignal): Promise<void> {
    const late = later(TOKEN_MS, signal);
    if (this.#tokenProvider !== null) {
      const given = Promise.resolve().then(this.#tokenProvider).catch(() => null);
      const token = await Promise.race([given, late]);
      if (!signal.aborted && typeof token === "string" && token !== "") this.#token = token;
    } else if (!this.#fired) {
      this.#fired = true;
      const event = new CustomEvent("nexus-usage-token", { bubbles: true, composed: true, cancelable: true });
      // A token that the page sets makes this element read anew, which ends this reading.
      await (this.dispatchEvent(event) ? Promise.resolve() : late);
    }
  }

  #forget(): void {
    this.#data = null;
    this.#show();
  }

  #show(phase: Phase = this.#phase): void {
    this.#phase = phase;
    this.#view?.show({ phase, choice: this.#choice, data: this.#data });
  }

  #language(): string | undefined {
    const nearest = this.closest<HTMLElement>("[lang]") ?? document.documentElement;
    return nearest.lang || undefined;
  }

  #dark(): boolean {
    const theme = this.getAttribute("theme");
    return theme === "dark" || (theme !== "light" && this.#darkScheme?.matches === true);
  }
}

/** Return the API's base address without a slash at its end, or null if it is none. */
function baseOf(src: string): string | null {
  const written = src === "" ? "/" : src;
  if (!URL.canParse(written, document.baseURI)) return null;
  const address = new URL(written, document.baseURI);
  if (!/^https?:$/.test(address.protocol)) return null;
  return (address.origin + address.pathname).replace(/\/+$/, "");
}

function oneOf<T extends string>(values: readonly T[], value: string | null, otherwise: T): T {
  return values.find((each) => each === value) ?? otherwise;
}

/** Return null after some time, or as soon as nobody waits any more. */
function later(milliseconds: number, signal: AbortSignal): Promise<null> {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds, null);
    signal.addEventListener("abort", () => resolve(null), { once: true });
  });
}
