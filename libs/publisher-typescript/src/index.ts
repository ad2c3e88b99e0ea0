/** Publishes tool runs and users to Nexus metering. */

export type * from "./events.js";
export type { BrokenRule, LossReason, LostEvent } from "./losses.js";
export {
  createPublisher,
  type EventOptions,
  type Publisher,
  type PublisherOptions,
  type PublisherStatus,
  type Receipt,
} from "./publisher.js";
export type { Decision, Otherwise, Why } from "./decision.js";
export {
  createEntitlements,
  type Entitlements,
  type EntitlementsOptions,
  type EntitlementsStatus,
  type Source,
} from "./entitlements.js";
export { signUsageToken, type UsageTokenOptions } from "./tokens.js";
