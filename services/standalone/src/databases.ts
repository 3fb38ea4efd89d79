import { join } from "node:path";
import { migrations as licensingMigrations } from "@licet/licensing/migrations";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "@licet/platform/database/embedded";
import { migrate } from "@licet/platform/database/migrate";
import { ensureDatabase, ensureRoles, type Role, roles, roleUrl } from "@licet/platform/database/roles";
import { migrations as logMigrations } from "@licet/platform/events/migrations";
import type { Logger } from "@licet/platform/logging";
import { migrations as meteringMigrations } from "@licet/usage-metering/migrations";

/** The databases of this installation and where their migrations are. */
const folders = {
  bus: logMigrations,
  licensing: licensingMigrations,
  metering: meteringMigrations,
} as const;

/** A Postgres server with all databases migrated. */
export interface DatabaseServer {
  /** The URL by which a role reaches one of the databases. */
  url(database: keyof typeof folders, role: Role): string;
  /** The administrator's URL of the server. */
  readonly adminUrl: string;
  /** The embedded server; undefined with DATABASE_URL. */
  readonly embedded: EmbeddedPostgres | undefined;
}

/** What {@link openDatabaseServer} needs. */
export interface DatabaseServerOptions {
  /** Administrator's URL; undefined: an embedded Postgres in the data folder is started. */
  readonly databaseUrl: string | undefined;
  readonly dataDir: string;
  readonly ephemeral: boolean;
  /** Settings of an embedded server on top of the small defaults. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Prefix of the databases' names, so that several installations can share a server. */
  readonly databasePrefix: string;
  readonly logger: Logger;
  /** Called with the embedded server as soon as it runs, so that it is stopped whatever fails after. */
  onEmbedded(server: EmbeddedPostgres): void;
}

/**
 * Brings the server up, creates the roles and databases and runs all migrations.
 * @throws Error in one sentence when the server can't be reached or a migration fails.
 */
export async function openDatabaseServer(options: DatabaseServerOptions): Promise<DatabaseServer> {
  const embedded = options.databaseUrl === undefined ? await startEmbedded(options) : undefined;
  const adminUrl = embedded?.url ?? options.databaseUrl ?? "";
  for (const { database, ran } of await migrateAll(adminUrl, options.databasePrefix)) {
    if (ran.length > 0) options.logger.info({ database, migrations: ran }, "migrated");
  }
  return {
    adminUrl,
    embedded,
    url: (database, role) => roleUrl(adminUrl, role, `${options.databasePrefix}_${database}`),
  };
}

/**
 * Creates the roles and all databases on a server and runs the migrations that they don't have yet. Idempotent; several at
 * once wait for each other.
 *
 * @returns what ran, by name of the database.
 * @throws Error in one sentence when the server can't be reached or a migration fails.
 */
export async function migrateAll(
  adminUrl: string,
  databasePrefix: string,
): Promise<{ database: string; ran: string[] }[]> {
  await ensureRoles(adminUrl);
  const done: { database: string; ran: string[] }[] = [];
  for (const [name, folder] of Object.entries(folders)) {
    const database = `${databasePrefix}_${name}`;
    await ensureDatabase(adminUrl, database);
    done.push({ database, ran: await migrate({ url: roleUrl(adminUrl, roles.owner, database), folder }) });
  }
  return done;
}

async function startEmbedded({ dataDir, ephemeral, settings, logger, onEmbedded }: DatabaseServerOptions) {
  const server = await startEmbeddedPostgres({
    dataDir: join(dataDir, "postgres"),
    ephemeral,
    ...(settings && { settings }),
    logger,
  });
  onEmbedded(server);
  return server;
}
