import type { CatalogCache } from "./cache/catalogs.ts";
import type { Freshness } from "./cache/freshness.ts";
import type { LicensingClock } from "./cache/licensing-clock.ts";
import type { SnapshotCache } from "./cache/snapshots.ts";
import type { UsageCache } from "./cache/usage.ts";
import type { ValidationMetrics } from "./metrics.ts";
import type { States } from "./watch/states.ts";
import type { Watches } from "./watch/watches.ts";

/** What the handlers and workers of this service share. */
export interface Context {
  readonly snapshots: SnapshotCache;
  readonly catalogs: CatalogCache;
  readonly usage: UsageCache;
  readonly freshness: Freshness;
  readonly licensingClock: LicensingClock;
  readonly watches: Watches;
  /** What watches send of customers. */
  readonly states: States;
  /** T: facts of this age, in milliseconds, are too old. */
  readonly fenceMs: number;
  readonly metrics: ValidationMetrics;
  /** The clock, in epoch milliseconds. */
  readonly now: () => number;
}
