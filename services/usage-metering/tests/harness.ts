import { type Client, createClient } from "@connectrpc/connect";
import { UsageLevelsSchema, UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { EventBus } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { migrations as busMigrations } from "@licet/platform/events/migrations";
import { createPostgresBus } from "@licet/platform/events/postgres";
import { createLogger } from "@licet/platform/logging";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { createTestDatabase, type TestDatabase } from "@licet/platform/testing/database";
import type { FaultProxy } from "@licet/platform/testing/proxy";
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
  another(bus?: EventBus): Promise<UsageMetering>;
  /** The log as another process would open it; `stop` ends it. */
  openBus(): Promise<EventBus>;
  /** Ends the serving instance and creates another one, not yet started. */
  replace(bus?: EventBus): Promise<UsageMetering>;
  stop(): Promise<void>;
}

/** What a suite has otherwise than usual. */
export interface HarnessOptions {
  /** As in the service's configuration. */
  readonly spool?: { readonly maxEvents: number };
  /** Opens the log; absent: the Postgres log. @param url of the Postgres log, as the system role. */
  readonly openBus?: (url: string) => Promise<EventBus>;
  /** Stands between the service and its database. */
  readonly databaseProxy?: FaultProxy;
}

/** When it is in tests that don't say. */
export const startOfTime = new Date("2026-11-22T10:00:00Z");

const logger = createLogger({ level: "silent", name: "test" });

/** The Postgres log at a URL, as the system role. */
export function openPostgresLog(url: string): Promise<EventBus> {
  return createPostgresBus({ url, topics: [UsageTrackedSchema, UsageLevelsSchema].map(topicOf), logger, pollMs: 10 });
}

/** A Postgres URL by way of a proxy that stands before its server. */
export function throughProxy(url: string, proxy: { readonly port: number } | undefined): string {
  if (proxy === undefined) return url;
  const changed = new URL(url);
  changed.host = `127.0.0.1:${proxy.port}`;
  return changed.href;
}

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

/** A client of one instance that acts for a tenant. */
export function clientOf(metering: UsageMetering, tenant: string): Client<typeof UsageMeteringService> {
  const { bindings } = metering;
  return createClient(
    UsageMeteringService,
    createLocalTransport({ bindings, pipeline, headers: { authorization: tenant } }),
  );
}

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const database = await createTestDatabase<DB>({ name: "metering", migrations });
  const log = await createTestDatabase<unknown>({ name: "metering_bus", migrations: busMigrations });
  const openings: Promise<EventBus>[] = [];
  const openBus = (): Promise<EventBus> => {
    const opening = (options.openBus ?? openPostgresLog)(log.url("licet_system"));
    openings.push(opening);
    return opening;
  };
  const bus = await openBus();
  const clock = { now: startOfTime };
  const config = {
    database: {
      appUrl: throughProxy(database.url("licet_app"), options.databaseProxy),
      systemUrl: throughProxy(database.url("licet_system"), options.databaseProxy),
    },
    maxConnections: 8,
    ...(options.spool && { spool: options.spool }),
  };
  const create = (on: EventBus) => createUsageMetering(config, { bus: on, logger, now: () => clock.now });
  let metering = create(bus);
  const others: UsageMetering[] = [];
  return {
    database,
    log,
    bus,
    clock,
    metering: () => metering,
    as: (tenant) => clientOf(metering, tenant),
    async another(on) {
      const other = create(on ?? (await openBus()));
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
