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
