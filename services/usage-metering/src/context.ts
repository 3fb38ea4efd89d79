import type { Databases } from "@licet/platform/database/database";
import type { EventBus } from "@licet/platform/events/bus";
import type { Metrics } from "./metrics.ts";
import type { DB } from "./store/schema.ts";

/** What handlers and workers need. */
export interface Context {
  readonly db: Databases<DB>;
  readonly bus: EventBus;
  readonly metrics: Metrics;
  readonly now: () => Date;
}
