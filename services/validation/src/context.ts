import type { CatalogCache } from "./cache/catalogs.ts";
import type { Freshness } from "./cache/freshness.ts";
import type { LicensingClock } from "./cache/licensing-clock.ts";
import type { SnapshotCache } from "./cache/snapshots.ts";
import type { ValidationMetrics } from "./metrics.ts";

/** What the handlers and workers of this service share. */
export interface Context {
  readonly snapshots: SnapshotCache;
  readonly catalogs: CatalogCache;
  readonly freshness: Freshness;
  readonly licensingClock: LicensingClock;
  /** T: facts of this age, in milliseconds, are too old. */
  readonly fenceMs: number;
  readonly metrics: ValidationMetrics;
  /** The clock, in epoch milliseconds. */
  readonly now: () => number;
}
