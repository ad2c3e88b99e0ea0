/** `import "@nexus-metering/usage"` makes `<nexus-usage>` known to the page. */

import { NexusUsage } from "./element.js";

export { NexusUsage, type TokenProvider } from "./element.js";
export type { Meter } from "./formats.js";
export type { Plural, Texts } from "./texts.js";

declare global {
  interface HTMLElementTagNameMap {
    "nexus-usage": NexusUsage;
  }
}

if (globalThis.customElements !== undefined && customElements.get("nexus-usage") === undefined) {
  customElements.define("nexus-usage", NexusUsage);
}
