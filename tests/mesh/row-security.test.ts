import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { asAdministrator, roles, roleUrl } from "@licet/platform/database/roles";
import { testServerUrl } from "@licet/platform/testing/database";
import { type TenancyExceptions, tenancyBreaches } from "@licet/platform/testing/tenancy";
import pg from "pg";
import { startLicet, type TestLicet } from "./licet.ts";

// Every table of every service's database is read from Postgres's own catalogue: a new one can't be forgotten here.

/** Of the tool that runs migrations, which the owner alone touches. */
const migrations = {
  kysely_migration: "which migrations have run",
  kysely_migration_lock: "held while migrations run",
};

const exceptions: Readonly<Record<string, TenancyExceptions>> = {
  licensing: {
    withoutTenant: {
      ...migrations,
      outbox_pending: "a mark names an event by its number, and nothing of a tenant; only the relay reads marks",
    },
    withoutTenantInKey: {
      "api_key: UNIQUE (key_id)": "a presented key names its id before its tenant is known",
      "event: PRIMARY KEY (id)": "the relay publishes all tenants' events in one order",
      "event: UNIQUE (event_id)": "an event's id is unique everywhere, for those who read the topics",
      "event_position: FOREIGN KEY (event_id) REFERENCES event(id)": "given by a trigger, by the number of the event",
      "event_position: UNIQUE (event_id)": "an event has one position",
      "license_history: FOREIGN KEY (event_id) REFERENCES event(event_id)":
        "an entry and its event are written together",
      "license_key: UNIQUE (key_hash)": "a presented license key is looked up before its tenant is known",
    },
  },
  metering: {
    withoutTenant: {
      ...migrations,
      consumer_offset: "how far the counter has read a topic, which is of all tenants",
      consumer_log: "which log the counter reads, which is of all tenants",
    },
    withoutTenantInKey: {
      "usage_spool: PRIMARY KEY (id)": "the drainer publishes all tenants' records in one order",
    },
  },
  bus: {
    withoutTenant: {
      ...migrations,
      partition: "a topic's partition, which is of all tenants; only the system role reads the log",
      record: "a topic's records, as Kafka has them",
      group_offset: "how far a group has read",
      log_id: "which log this is",
    },
    withoutTenantInKey: {},
  },
};

let licet: TestLicet;
beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet.stop());

/** Runs `work` on a connection to one of the databases: as superuser, or as a role. */
async function connected<T>(
  database: string,
  work: (client: pg.Client) => Promise<T>,
  role?: "licet_app" | "licet_system",
): Promise<T> {
  const name = `${licet.databasePrefix}_${database}`;
  const admin = new URL(testServerUrl());
  admin.pathname = `/${name}`;
  const connectionString = role === undefined ? admin.href : roleUrl(testServerUrl(), role, name);
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const breachesOf = (client: pg.Client, database: string) =>
  tenancyBreaches(client, exceptions[database] ?? { withoutTenant: {}, withoutTenantInKey: {} });

/** Tables of a database, those with a tenant or those without. */
async function tablesOf(client: pg.Client, withTenant: boolean): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') = $1 ORDER BY 1`,
    [withTenant],
  );
  return rows.map(({ name }) => name);
}

/** How many rows of a table are seen in the running transaction; undefined where reading is not permitted. */
async function countOf(client: pg.Client, table: string, where = ""): Promise<number | undefined> {
  await client.query("SAVEPOINT look");
  try {
    const { rows } = await client.query<{ count: string }>(
      `SELECT count(*) FROM ${pg.escapeIdentifier(table)} ${where}`,
    );
    return Number(rows[0]?.count);
  } catch (error) {
    expect(error).toMatchObject({ code: "42501" });
    return undefined;
  } finally {
    await client.query("ROLLBACK TO SAVEPOINT look");
  }
}

describe.each(["licensing", "metering", "bus"])("the database of %s", (database) => {
  test("keeps tenants apart in every table, policy, key, role and function", async () => {
    expect(await connected(database, (client) => breachesOf(client, database))).toEqual([]);
  });

  test("shows the app role no row of any table without a tenant, and with one that tenant's only", async () => {
    // The mesh writes meanwhile (when a key was used, say): both looks are into one snapshot.
    const { truth, seen } = await connected(database, async (admin) => {
      const withTenant = await tablesOf(admin, true);
      const tables = [...withTenant, ...(await tablesOf(admin, false))];
      await admin.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
      const { rows } = await admin.query<{ snapshot: string }>("SELECT pg_export_snapshot() AS snapshot");
      const snapshot = pg.escapeLiteral(rows[0]?.snapshot ?? "");
      const truth = new Map<string, number | undefined>();
      for (const table of withTenant) truth.set(table, await countOf(admin, table, "WHERE tenant_id = 'tradsys'"));
      const seen = await connected(
        database,
        async (client) => {
          const counts: [string, number | undefined, number | undefined][] = [];
          await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
          await client.query(`SET TRANSACTION SNAPSHOT ${snapshot}`);
          for (const table of tables) {
            const without = await countOf(client, table);
            await client.query("SET LOCAL licet.tenant = ''");
            expect(await countOf(client, table)).toBe(without);
            await client.query("SET LOCAL licet.tenant = 'tradsys'");
            counts.push([table, without, await countOf(client, table)]);
            await client.query("RESET licet.tenant");
          }
          return counts;
        },
        roles.app,
      ).catch((error: unknown) => {
        // The log's database is for the system role alone: the app role reads nothing of it.
        if (database !== "bus") throw error;
        return [];
      });
      return { truth, seen };
    });
    for (const [table, without, own] of seen) {
      expect([table, without ?? 0]).toEqual([table, 0]);
      if (own !== undefined && without !== undefined) expect([table, own]).toEqual([table, truth.get(table)]);
    }
    // There was something to be seen.
    if (database !== "bus")
      expect(seen.filter(([, , own]) => (own ?? 0) > 0).length).toBeGreaterThan(database === "licensing" ? 8 : 1);
  });
});

describe("controls", () => {
  const everyTable = ["licensing", "metering"].map((database) => [database] as const);

  test.each(everyTable)(
    "row-level security switched off, or not forced, on any one table of %s is found",
    async (database) => {
      await connected(database, async (client) => {
        for (const table of await tablesOf(client, true)) {
          for (const [change, what] of [
            ["DISABLE ROW LEVEL SECURITY", "enabled"],
            ["NO FORCE ROW LEVEL SECURITY", "forced"],
          ]) {
            await client.query("BEGIN");
            await client.query(`ALTER TABLE ${table} ${change}`);
            expect(await breachesOf(client, database)).toEqual([`${table}: row-level security is not ${what}`]);
            await client.query("ROLLBACK");
          }
        }
      });
    },
  );

  test.each([
    [
      "a policy without WITH CHECK of its own",
      "DROP POLICY app_own_tenant ON customer; CREATE POLICY app_own_tenant ON customer TO licet_app USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))",
      "has WITH CHECK null",
    ],
    [
      "a policy that lets all in",
      "CREATE POLICY more ON customer TO licet_app USING (true) WITH CHECK (true)",
      "policy more on customer has USING true",
    ],
    [
      "a policy for everybody",
      "CREATE POLICY more ON customer USING (true)",
      "policy more on customer is for everybody",
    ],
    [
      "a new table without a tenant",
      "CREATE TABLE forgotten (id int PRIMARY KEY); ALTER TABLE forgotten OWNER TO licet_owner",
      "forgotten has no tenant_id, and no reason is given",
    ],
    [
      "a new table with a tenant and nothing else",
      "CREATE TABLE forgotten (tenant_id text); ALTER TABLE forgotten OWNER TO licet_owner",
      "forgotten: row-level security is not enabled",
    ],
    ["a table of the app role", "ALTER TABLE customer OWNER TO licet_app", "licet_app owns customer"],
    [
      "a view",
      "CREATE VIEW all_customers AS SELECT * FROM customer; ALTER VIEW all_customers OWNER TO licet_owner",
      "all_customers is no table",
    ],
    [
      "a function with its owner's rights",
      "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM customer'",
      "the function peek() runs with its owner's rights",
    ],
    [
      "a key without the tenant",
      "ALTER TABLE license ADD UNIQUE (license_id)",
      "license: UNIQUE (license_id) leaves the tenant out",
    ],
    ["a unique index without the tenant", "CREATE UNIQUE INDEX i ON license (license_id)", "leaves the tenant out"],
    [
      "a role that bypasses",
      "ALTER ROLE licet_app BYPASSRLS",
      "licet_app is a superuser or bypasses row-level security",
    ],
    ["a role that is the owner too", "GRANT licet_owner TO licet_app", "licet_app is a member of licet_owner"],
    ["the right to empty a table", "GRANT TRUNCATE ON customer TO licet_app", "customer: the app role has TRUNCATE"],
  ])("%s is found", async (_what, change, breach) => {
    // Roles are the server's: by the lock, no suite that begins meanwhile alters one at the same time.
    await asAdministrator(testServerUrl(), () =>
      connected("licensing", async (client) => {
        await client.query("BEGIN");
        await client.query(change);
        expect(await breachesOf(client, "licensing")).toContainEqual(expect.stringContaining(breach));
        await client.query("ROLLBACK");
      }),
    );
  });

  test("with row-level security off the app role would see the rows: the look from outside is one", async () => {
    await connected("licensing", async (client) => {
      await client.query("BEGIN");
      await client.query("ALTER TABLE customer DISABLE ROW LEVEL SECURITY");
      await client.query("SET LOCAL ROLE licet_app");
      expect(await countOf(client, "customer")).toBeGreaterThan(0);
      await client.query("ROLLBACK");
    });
  });
});
