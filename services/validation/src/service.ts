import { setTimeout as delay } from "node:timers/promises";
import { createClient, type Transport } from "@connectrpc/connect";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { EventBus, Subscription } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import type { Logger } from "@licet/platform/logging";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { noSharedCache, type SharedCache } from "@licet/platform/shared-cache/shared-cache";
import { meter } from "@licet/platform/telemetry";
import { createCatalogCache } from "./cache/catalogs.ts";
import { createFreshness } from "./cache/freshness.ts";
import { createLicensingClock } from "./cache/licensing-clock.ts";
import { createSnapshotCache } from "./cache/snapshots.ts";
import { createUsageCache } from "./cache/usage.ts";
import type { Config } from "./config.ts";
import type { Context } from "./context.ts";
import { createMetrics, observeUsage } from "./metrics.ts";
import { bind } from "./rpc/index.ts";
import { createTurnClock } from "./turn-clock.ts";
import { createStates } from "./watch/states.ts";
import { createWatches } from "./watch/watches.ts";
import { keepCalibrated } from "./workers/calibration.ts";
import { type ReplicationOptions, replicate } from "./workers/replication.ts";

/** The longest pause, in milliseconds, between attempts to fill the caches. */
const maxPauseMs = 5_000;

/** What validation is given by the process that it runs in; the clocks and the shared cache have working defaults. */
export interface Dependencies {
  readonly bus: EventBus;
  /** Reaches LicensingService with the mesh's credential. */
  readonly licensing: Transport;
  /** Reaches UsageMeteringService; without it the aliases of its RPCs are refused. */
  readonly metering?: Transport;
  readonly logger: Logger;
  /** Filled by all replicas for each other; none when absent. Whoever made it stops it. */
  readonly sharedCache?: SharedCache;
  readonly now?: () => Date;
  /** A clock that nobody can set, in milliseconds since some start; that of the process when absent. */
  readonly steadyMs?: () => number;
}

/** The validation service: decides from memory. */
export interface Validation {
  readonly bindings: readonly ServiceBinding[];
  /**
   * Fills the caches from licensing and the log, trying again until it
   * succeeds, and keeps them up to date. Resolves once the service is ready,
   * or stopped.
   */
  start(): Promise<void>;
  /** Whether all that was published before the start is known. A log that falls silent later does not undo it. */
  ready(): boolean;
  /**
   * Whether the log has been silent, or late, for so long that decisions depend on licensing's answers or on the fail
   * modes of the features. For the health page: a replica that is cut off still serves better than none.
   */
  degraded(): boolean;
  stop(): Promise<void>;
}

/** Creates the validation service. It needs no database. Call it after telemetry was started. */
export function createValidation(config: Config, dependencies: Dependencies): Validation {
  const { bus, licensing: transport, logger } = dependencies;
  const { now } = dependencies;
  const turn = createTurnClock();
  const nowMs = now === undefined ? () => turn().wallMs : () => now().getTime();
  const licensing = createClient(LicensingService, transport);
  const steadyMs = dependencies.steadyMs ?? (() => turn().steadyMs);
  const licensingClock = createLicensingClock(() => ({ wallMs: nowMs(), steadyMs: steadyMs() }));
  // Of entitlements alone: that is where revocations travel, and a feature's change withdraws nothing.
  const { partitions } = topicOf(EntitlementSnapshotSchema);
  const freshness = createFreshness(partitions, licensingClock.latestMs);
  const shared = dependencies.sharedCache ?? noSharedCache;
  const { partitions: usagePartitions } = topicOf(UsageLevelsSchema);
  const watches = createWatches({ snapshots: partitions, usage: usagePartitions }, config.watches);
  const snapshots = createSnapshotCache({
    licensing,
    shared,
    freshness,
    licensingClock,
    config,
    logger,
    onMissed: watches.customerChanged,
  });
  const usage = createUsageCache({
    partitions: usagePartitions,
    maxCustomers: config.maxCustomers,
    latestMs: licensingClock.latestMs,
    now: nowMs,
  });
  observeUsage(meter("licet.validation"), usage.stalenessMs);
  const ctx: Context = {
    snapshots,
    catalogs: createCatalogCache(),
    usage,
    freshness,
    licensingClock,
    watches,
    states: createStates({ snapshots, changes: watches.changes, freshness, licensing }),
    fenceMs: config.fenceMs,
    metrics: createMetrics(meter("licet.validation"), {
      cacheSize: () => snapshots.size,
      stalenessMs: freshness.stalenessMs,
      watches: () => watches.size,
    }),
    now: nowMs,
  };
  const stopping = new AbortController();
  let calibrating: Promise<void> | undefined;
  const options = { bus, licensing, logger, signal: stopping.signal };
  let starting: Promise<Subscription[]> | undefined;
  let ready = false;

  return {
    bindings: bind(ctx, {
      licenses: licensing,
      usage: dependencies.metering && createClient(UsageMeteringService, dependencies.metering),
    }),
    async start() {
      starting ??= replicateUntilDone(ctx, options);
      await starting;
      ready = !stopping.signal.aborted;
      const { calibrationMs } = config;
      calibrating ??= keepCalibrated(licensingClock, { licensing, calibrationMs, logger, signal: stopping.signal });
    },
    ready: () => ready,
    degraded: () => freshness.stalenessMs() >= config.fenceMs,
    async stop() {
      ready = false;
      stopping.abort();
      watches.stop();
      const following = (await starting) ?? [];
      await calibrating;
      await Promise.all(following.map((subscription) => subscription.stop()));
    },
  };
}

/** Attempts until it succeeds or is stopped; licensing or the log may come up later than we do. */
async function replicateUntilDone(ctx: Context, options: ReplicationOptions): Promise<Subscription[]> {
  const { logger, signal } = options;
  for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(2 * pauseMs, maxPauseMs)) {
    try {
      return await replicate(ctx, options);
    } catch (error) {
      if (signal.aborted) break;
      // Licensing may start after us: only what lasts is an error.
      const level = pauseMs < maxPauseMs ? "warn" : "error";
      logger[level]({ err: error, pauseMs }, "the caches can't be filled yet; trying again");
      await delay(pauseMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }
  return [];
}
