import { openDatabase } from "@licet/platform/database/database";
import type { EventBus, Subscription } from "@licet/platform/events/bus";
import type { Logger } from "@licet/platform/logging";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { createBusGate } from "./bus-gate.ts";
import type { Config } from "./config.ts";
import type { Context } from "./context.ts";
import { createMetrics } from "./metrics.ts";
import { bindServices } from "./rpc/index.ts";
import type { DB } from "./store/schema.ts";
import { startCounter } from "./workers/counter.ts";
import { type Drainer, startDrainer } from "./workers/drainer.ts";
import { type Publisher, startPublisher } from "./workers/publisher.ts";

/** What usage metering is given by the process that it runs in; the clock has a working default. */
export interface Dependencies {
  readonly bus: EventBus;
  readonly logger: Logger;
  readonly now?: () => Date;
}

/** The usage-metering service: takes usage events, counts each once and tells how much was used. */
export interface UsageMetering {
  readonly bindings: readonly ServiceBinding[];
  /** Starts to count, to hand on what is spooled and to publish how much was used. */
  start(): Promise<void>;
  /** Resolves when everything that was accepted before the call is counted. */
  drain(): Promise<void>;
  /** Whether it serves and counts. */
  ready(): boolean;
  stop(): Promise<void>;
}

/** Creates the usage-metering service on a migrated database. Call it after telemetry was started. */
export function createUsageMetering(config: Config, dependencies: Dependencies): UsageMetering {
  const { bus, logger } = dependencies;
  const { appUrl, systemUrl } = config.database;
  const { maxConnections, spool } = config;
  const db = {
    app: openDatabase<DB>({ url: appUrl, applicationName: "licet-metering", maxConnections }),
    system: openDatabase<DB>({ url: systemUrl, applicationName: "licet-metering-system", maxConnections }),
  };
  const gate = createBusGate(bus, logger);
  const ctx: Context = { db, bus, gate, spool, metrics: createMetrics(), now: dependencies.now ?? (() => new Date()) };
  let counter: Subscription | undefined;
  let drainer: Drainer | undefined;
  let publisher: Publisher | undefined;

  return {
    bindings: bindServices(ctx),
    async start() {
      counter = await startCounter(ctx, logger, () => publisher?.wake());
      drainer = startDrainer(ctx, systemUrl, logger);
      publisher = startPublisher(ctx, systemUrl, logger);
    },
    async drain() {
      await drainer?.drained();
      await counter?.caughtUp();
    },
    ready: () => counter !== undefined,
    async stop() {
      await Promise.all([publisher?.stop(), drainer?.stop(), counter?.stop()]);
      publisher = undefined;
      drainer = undefined;
      counter = undefined;
      await db.app.destroy();
      await db.system.destroy();
    },
  };
}
