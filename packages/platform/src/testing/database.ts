import { randomBytes } from "node:crypto";
import pg from "pg";
import { type Databases, openDatabase } from "../database/database.ts";
import { migrate } from "../database/migrate.ts";
import { asAdministrator, ensureDatabase, ensureRoles, type Role, roles, roleUrl } from "../database/roles.ts";

const PATIENCE_MS = 120_000;

/** A database of its own for one test suite. */
export interface TestDatabase<DB> {
  /** The superuser's URL, to the maintenance database of the server. */
  readonly adminUrl: string;
  readonly name: string;
  /** As services open it, but with sessions that wait longer. */
  readonly databases: Databases<DB>;
  /** URL of this database for a role, with the limits that services set. */
  url(role: Role): string;
  /**
   * The same with longer limits: for a service whose tests let many wait for one lock, or one that a test holds, which on a
   * machine that stands still is for longer than a service waits.
   */
  patientUrl(role: Role): string;
  /**
   * Runs `work` on a superuser's session in this database. Sessions of the server's maintenance database wait for each
   * other (it is where databases are set up): one that stays there would hold up the other suites, and be held up by them.
   */
  asSuperuser<T>(work: (client: pg.Client) => Promise<T>): Promise<T>;
  /** Closes the pools and removes the database. */
  drop(): Promise<void>;
}

/** A URL whose sessions wait longer than a service's: a test that a busy machine holds up for some seconds is no failure. */
function patient(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  for (const limit of ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"]) {
    url.searchParams.set(limit, `${PATIENCE_MS}`);
  }
  return url.href;
}

/** URL of the server that the Jest run uses (`testing/global-setup.ts` starts it). */
export function testServerUrl(): string {
  const url = process.env.LICET_TEST_DATABASE_URL;
  if (url === undefined) throw new Error("LICET_TEST_DATABASE_URL is not set: run the test through `pnpm jest`");
  return url;
}

/**
 * Creates an empty database on the test server, with the real roles, and runs `migrations` (a folder) in it.
 * @param options.name a hint for people reading `pg_stat_activity`; lower case letters, digits, underscores.
 */
export async function createTestDatabase<DB>(options: {
  readonly name: string;
  readonly migrations?: string;
}): Promise<TestDatabase<DB>> {
  const adminUrl = testServerUrl();
  const name = `test_${options.name}_${randomBytes(4).toString("hex")}`;
  await ensureRoles(adminUrl);
  await ensureDatabase(adminUrl, name);
  const url = (role: Role) => roleUrl(adminUrl, role, name);
  if (options.migrations !== undefined) await migrate({ url: url(roles.owner), folder: options.migrations });
  const patientUrl = (role: Role) => patient(url(role));
  const open = (role: Role) => openDatabase<DB>({ url: patientUrl(role), applicationName: name, maxConnections: 8 });
  const databases = { app: open(roles.app), system: open(roles.system) };
  return {
    adminUrl,
    name,
    databases,
    url,
    patientUrl,
    asSuperuser: (work) => asAdministrator(Object.assign(new URL(adminUrl), { pathname: `/${name}` }).href, work),
    drop: async () => {
      await Promise.all([databases.app.destroy(), databases.system.destroy()]);
      await asAdministrator(adminUrl, (client) =>
        client.query(`DROP DATABASE ${pg.escapeIdentifier(name)} WITH (FORCE)`),
      );
    },
  };
}
