import { UsageLevelsSchema, UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { Credential } from "@licet/platform/credentials";
import { migrate } from "@licet/platform/database/migrate";
import { ensureDatabase, ensureRoles, type Role, roles, roleUrl } from "@licet/platform/database/roles";
import { topicOf } from "@licet/platform/events/cloudevent";
import { migrations as logMigrations } from "@licet/platform/events/migrations";
import { createPostgresBus } from "@licet/platform/events/postgres";
import type { Logger } from "@licet/platform/logging";
import { createPipeline, type Pipeline } from "@licet/platform/rpc/pipeline";
import { createUsageMetering, type UsageMetering } from "@licet/usage-metering";
import { migrations as meteringMigrations } from "@licet/usage-metering/migrations";

/** The databases of one usage metering, each as the roles that use it. */
export interface MeteringUrls {
  readonly appUrl: string;
  readonly systemUrl: string;
  /** The event log's. */
  readonly logUrl: string;
}

/** As many connections of each role as a replica has by default. */
const CONNECTIONS = 8;

/** Creates and migrates the databases on a server. @param name what their names begin with */
export async function createMeteringDatabases(serverUrl: string, name: string): Promise<MeteringUrls> {
  await ensureRoles(serverUrl);
  const create = async (database: string, folder: string): Promise<(role: Role) => string> => {
    await ensureDatabase(serverUrl, database);
    await migrate({ url: roleUrl(serverUrl, roles.owner, database), folder });
    return (role) => roleUrl(serverUrl, role, database);
  };
  const metering = await create(`${name}_metering`, meteringMigrations);
  const log = await create(`${name}_bus`, logMigrations);
  return { appUrl: metering(roles.app), systemUrl: metering(roles.system), logUrl: log(roles.system) };
}

/**
 * A usage-metering service on an event log in Postgres, behind the pipeline. It is not started: it accepts, and does not
 * count.
 */
export async function openMetering(
  { appUrl, systemUrl, logUrl }: MeteringUrls,
  logger: Logger,
): Promise<{ readonly metering: UsageMetering; readonly pipeline: Pipeline; stop(): Promise<void> }> {
  const bus = await createPostgresBus({
    url: logUrl,
    topics: [UsageTrackedSchema, UsageLevelsSchema].map(topicOf),
    logger,
  });
  const database = { appUrl, systemUrl };
  const metering = createUsageMetering({ database, maxConnections: CONNECTIONS }, { bus, logger });
  const sender: Credential = {
    id: "bench",
    tenant: "bench",
    role: "service",
    scopes: new Set(["usage:write"]),
    kind: "api_key",
  };
  const pipeline = createPipeline({ authenticate: async () => sender, maxConcurrent: 500, maxStreams: 1, logger });
  return {
    metering,
    pipeline,
    async stop() {
      await metering.stop();
      await bus.stop();
    },
  };
}

/** Events of one call, each of another customer than the next. @param idOf the id of the event with an index */
export function eventsOf(batch: number, idOf: (index: number) => string) {
  return Array.from({ length: batch }, (_, index) => ({
    id: idOf(index),
    source: "bench",
    customerId: `customer-${index % 100}`,
    metric: "api_calls",
    feature: "egx_access",
    quantity: "1",
  }));
}
