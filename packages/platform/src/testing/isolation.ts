import { sql } from "kysely";
import { roles } from "../database/roles.ts";
import type { TestDatabase } from "./database.ts";

interface TableFacts {
  readonly name: string;
  readonly owner: string;
  readonly enabled: boolean;
  readonly forced: boolean;
  readonly tenant_column: boolean;
  readonly readable: boolean;
}

/**
 * Looks for ways around tenant isolation in a migrated database, to be expected empty by each service's tests after they
 * have written rows: a table the app role can read without row-level security in force, rows it sees or changes without a
 * tenant, tables it owns.
 *
 * @returns one sentence per breach.
 */
export async function isolationBreaches<DB>(database: {
  readonly databases: Pick<TestDatabase<DB>["databases"], "app">;
}): Promise<string[]> {
  const { app } = database.databases;
  const { rows } = await sql<TableFacts>`
    SELECT c.relname AS name, c.relowner::regrole::text AS owner, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
           EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') AS tenant_column,
           has_table_privilege(c.oid, 'SELECT') AS readable
    FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname`.execute(
    app,
  );
  const breaches: string[] = [];
  for (const table of rows) {
    if (table.owner !== roles.owner) breaches.push(`${table.name} is owned by ${table.owner}`);
    if (!table.readable) continue;
    if (!table.enabled || !table.forced) breaches.push(`${table.name} is readable without forced row-level security`);
    if (!table.tenant_column) breaches.push(`${table.name} is readable and has no tenant_id`);
    const seen = await sql<{ count: bigint }>`SELECT count(*) FROM ${sql.table(table.name)}`.execute(app);
    const count = seen.rows[0]?.count ?? 0n;
    if (count > 0n) breaches.push(`${table.name} shows ${count} rows without a tenant`);
  }
  return breaches;
}
