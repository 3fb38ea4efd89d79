import type { Databases } from "@licet/platform/database/database";
import type { EventBus } from "@licet/platform/events/bus";
import type { BusGate } from "./bus-gate.ts";
import type { Metrics } from "./metrics.ts";
import type { DB } from "./store/schema.ts";

/** What handlers and workers need. */
export interface Context {
  readonly db: Databases<DB>;
  readonly bus: EventBus;
  /** The bus for usage events. */
  readonly gate: BusGate;
  /** Where events are kept while the bus is down, so many at most; undefined: they are refused. */
  readonly spool: { readonly maxEvents: number } | undefined;
  readonly metrics: Metrics;
  readonly now: () => Date;
}
