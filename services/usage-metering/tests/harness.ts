import { type Client, createClient } from "@connectrpc/connect";
import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { EventBus } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { migrations as busMigrations } from "@licet/platform/events/migrations";
import { createPostgresBus } from "@licet/platform/events/postgres";
import { createLogger } from "@licet/platform/logging";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { createTestDatabase, type TestDatabase } from "@licet/platform/testing/database";
import { migrations } from "../src/migrations.ts";
import { createUsageMetering, type UsageMetering } from "../src/service.ts";
import type { DB } from "../src/store/schema.ts";

/** Usage metering on a database and a Postgres log of its own, with a clock that tests set. */
export interface Harness {
  database: TestDatabase<DB>;
  /** The database of the log. */
  log: TestDatabase<unknown>;
  bus: EventBus;
  clock: { now: Date };
  metering(): UsageMetering;
  /** A client that acts for a tenant, whichever instance serves. */
  as(tenant: string): Client<typeof UsageMeteringService>;
  /** A further instance on the same database and log, as another process would run it; `stop` ends it. */
  another(): Promise<UsageMetering>;
  /** The log as another process would open it; `stop` ends it. */
  openBus(): Promise<EventBus>;
  /** Ends the serving instance and creates another one, not yet started. */
  replace(bus?: EventBus): Promise<UsageMetering>;
  stop(): Promise<void>;
}

export async function startHarness(): Promise<Harness> {
  const database = await createTestDatabase<DB>({ name: "metering", migrations });
  const log = await createTestDatabase<unknown>({ name: "metering_bus", migrations: busMigrations });
  const logger = createLogger({ level: "silent", name: "test" });
  const openings: Promise<EventBus>[] = [];
  const openBus = (): Promise<EventBus> => {
    const topics = [topicOf(UsageTrackedSchema)];
    const opening = createPostgresBus({ url: log.url("licet_system"), topics, logger, pollMs: 10 });
    openings.push(opening);
    return opening;
  };
  const bus = await openBus();
  const clock = { now: new Date("2026-11-22T10:00:00Z") };
  const config = {
    database: { appUrl: database.url("licet_app"), systemUrl: database.url("licet_system") },
    maxConnections: 8,
  };
  const create = (on: EventBus) => createUsageMetering(config, { bus: on, logger, now: () => clock.now });
  let metering = create(bus);
  const others: UsageMetering[] = [];
  const pipeline = createPipeline({
    authenticate: async (headers) => ({
      id: "key",
      tenant: headers.get("authorization") ?? "",
      role: "admin",
      scopes: new Set(["usage:write", "usage:read"]),
      kind: "api_key",
    }),
    maxConcurrent: 500,
    maxStreams: 10,
    logger,
  });
  return {
    database,
    log,
    bus,
    clock,
    metering: () => metering,
    as: (tenant) =>
      createClient(
        UsageMeteringService,
        createLocalTransport({ bindings: metering.bindings, pipeline, headers: { authorization: tenant } }),
      ),
    async another() {
      const other = create(await openBus());
      others.push(other);
      return other;
    },
    openBus,
    async replace(on = bus) {
      await metering.stop();
      metering = create(on);
      return metering;
    },
    async stop() {
      await Promise.all([metering, ...others].map((one) => one.stop()));
      await Promise.all(openings.map(async (opening) => (await opening).stop()));
      await database.drop();
      await log.drop();
    },
  };
}
