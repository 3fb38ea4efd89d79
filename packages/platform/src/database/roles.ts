import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import pg from "pg";
import { connectionError } from "./connection.ts";

/**
 * The three accounts a service uses. `owner` owns the databases and runs the migrations; `app` serves calls, sees only rows
 * of the tenant set in its transaction; `system` serves relays, schedulers and key look-up, which work across tenants, by
 * policies of its own on the tables that name it.
 */
export const roles = { owner: "licet_owner", app: "licet_app", system: "licet_system" } as const;

/** Name of one of the three database roles. */
export type Role = (typeof roles)[keyof typeof roles];

/** Oldest server that works: from 15 on, not everybody may create tables in the schema `public`. */
const OLDEST_SERVER = 150_000;

/** Any constant: one installation at a time changes the roles and databases of a server. */
const SETUP_LOCK = 4_711_001;

/**
 * The password of a role: HMAC-SHA256 of its name under the administrator's password, base64url. Nothing has to be stored,
 * every replica computes the same, and none of the three reveals another one or the administrator's.
 *
 * @throws Error when the URL has no password: the result would be the same everywhere.
 */
export function rolePassword(adminUrl: string, role: Role): string {
  const { password } = parseUrl(adminUrl);
  if (password === "") {
    throw new Error(
      "DATABASE_URL needs a password (postgres://user:password@host:port): the roles' passwords derive from it",
    );
  }
  return createHmac("sha256", decodeURIComponent(password)).update(`licet database role ${role}`).digest("base64url");
}

/** The URL by which `role` reaches `database` on the administrator's server; other parts of the URL (TLS) are kept. */
export function roleUrl(adminUrl: string, role: Role, database: string): string {
  const url = parseUrl(adminUrl);
  url.username = role;
  url.password = rolePassword(adminUrl, role);
  url.pathname = `/${encodeURIComponent(database)}`;
  return url.href;
}

/**
 * Creates the three roles on the server, or brings their passwords up to date. Idempotent, safe to run at the same time
 * from several processes. The administrator need not be a superuser; CREATEROLE and CREATEDB are enough.
 *
 * @throws Error in one sentence: unreachable server, refused login, too old, a role that would bypass row-level security.
 */
export async function ensureRoles(adminUrl: string): Promise<void> {
  await asAdministrator(adminUrl, async (client) => {
    for (const role of Object.values(roles)) await ensureRole(client, role, rolePassword(adminUrl, role));
  });
}

async function ensureRole(client: pg.Client, role: Role, password: string): Promise<void> {
  const found = await client.query<{ bypasses: boolean }>(
    "SELECT rolsuper OR rolbypassrls AS bypasses FROM pg_roles WHERE rolname = $1",
    [role],
  );
  if (found.rows[0]?.bypasses) {
    throw new Error(
      `the database role ${role} is a superuser or has BYPASSRLS, so tenants would not be isolated: take that away`,
    );
  }
  // A new role is NOSUPERUSER and NOBYPASSRLS; only a superuser may spell that out, so it is left unsaid.
  const verb = found.rows.length === 0 ? "CREATE" : "ALTER";
  await client.query(`${verb} ROLE ${role} WITH LOGIN PASSWORD ${pg.escapeLiteral(scramVerifier(password))}`);
}

/**
 * Creates `database`, owned by the owner role, reachable by the three roles only. Idempotent like {@link ensureRoles},
 * which must have run before.
 */
export async function ensureDatabase(adminUrl: string, database: string): Promise<void> {
  const name = pg.escapeIdentifier(database);
  await asAdministrator(adminUrl, async (client) => {
    const found = await client.query("SELECT FROM pg_database WHERE datname = $1", [database]);
    if (found.rowCount === 0) {
      // A superuser may give a database to any role, others only to one they are a member of.
      await client.query(`GRANT ${roles.owner} TO CURRENT_USER`);
      await client.query(`CREATE DATABASE ${name} OWNER ${roles.owner} TEMPLATE template0 ENCODING 'UTF8'`);
    }
    await client.query(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`);
    await client.query(`GRANT CONNECT ON DATABASE ${name} TO ${roles.app}, ${roles.system}`);
  });
}

/** Runs `work` on a connection of the administrator, holding the set-up lock. */
export async function asAdministrator<T>(adminUrl: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const url = parseUrl(adminUrl);
  if (url.pathname === "" || url.pathname === "/") url.pathname = "/postgres";
  const client = new pg.Client({
    connectionString: url.href,
    application_name: "licet setup",
    connectionTimeoutMillis: 5_000,
    statement_timeout: 60_000,
  });
  // A connection that breaks fails the statement under way; nobody else needs to hear of it.
  client.on("error", () => undefined);
  try {
    await client.connect();
  } catch (error) {
    throw connectionError(adminUrl, error);
  }
  try {
    await client.query("SELECT pg_advisory_lock($1)", [SETUP_LOCK]);
    const version = await client.query<{ version: number }>(
      "SELECT current_setting('server_version_num')::int AS version",
    );
    const found = version.rows[0]?.version ?? 0;
    if (found < OLDEST_SERVER)
      throw new Error(`Postgres 15 or newer is needed, the server is ${Math.floor(found / 10_000)}`);
    return await work(client);
  } finally {
    await client.end();
  }
}

function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol)) {
    throw new Error("DATABASE_URL must look like postgres://user:password@host:port");
  }
  return url;
}

/** What Postgres stores of a password (RFC 5803): sent in place of the password, which then can't reach a server log. */
function scramVerifier(password: string): string {
  const iterations = 4096;
  const salt = randomBytes(16);
  const salted = pbkdf2Sync(password, salt, iterations, 32, "sha256");
  const hmac = (text: string) => createHmac("sha256", salted).update(text).digest();
  const storedKey = createHash("sha256").update(hmac("Client Key")).digest("base64");
  return `SCRAM-SHA-256$${iterations}:${salt.toString("base64")}$${storedKey}:${hmac("Server Key").toString("base64")}`;
}
