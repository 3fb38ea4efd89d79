import type pg from "pg";
import { roles } from "../database/roles.ts";

/** What of a database's tables is as it is on purpose, each with its reason. */
export interface TenancyExceptions {
  /** Tables that have no tenant, by name. */
  readonly withoutTenant: Readonly<Record<string, string>>;
  /** Keys and references that leave the tenant out, as `table: definition`. */
  readonly withoutTenantInKey: Readonly<Record<string, string>>;
}

/** The only expression by which the app role may see or write a row. After a transaction a pooled connection holds '' as the setting. */
const OWN_TENANT = "(tenant_id = NULLIF(current_setting('licet.tenant'::text, true), ''::text))";

interface Table {
  readonly name: string;
  readonly kind: string;
  readonly owner: string;
  readonly enabled: boolean;
  readonly forced: boolean;
  /** Whether there is a column tenant_id, and it may hold NULL. */
  readonly tenant: "none" | "nullable" | "needed";
  /** What the app role may do with it. */
  readonly rights: readonly string[];
}

interface Policy {
  readonly table_name: string;
  readonly name: string;
  readonly command: string;
  readonly to_roles: readonly string[];
  readonly using_expression: string | null;
  readonly check_expression: string | null;
}

/**
 * Reads a database's catalogue, whatever tables it has, and tells each way in which tenants would not be kept apart: a table
 * with tenant_id whose row-level security is not enabled and forced, a policy of the app role without USING or WITH CHECK
 * or by anything but the tenant, a key or reference without the tenant, a table without tenant_id that is not named, a
 * role that bypasses, owns or inherits something, a function or view that runs with its owner's rights.
 *
 * @param client - connected to the database as a superuser; may be in a transaction
 * @returns one sentence for each
 */
export async function tenancyBreaches(client: pg.ClientBase, exceptions: TenancyExceptions): Promise<string[]> {
  const tables = await readTables(client);
  const policies = await readPolicies(client);
  return [
    ...tables.flatMap((table) => tableBreaches(table, exceptions)),
    ...policies.flatMap(policyBreaches),
    ...(await keyBreaches(client, exceptions)),
    ...unusedExceptions(tables, exceptions),
    ...(await roleBreaches(client)),
    ...(await definerBreaches(client)),
  ];
}

async function readTables(client: pg.ClientBase): Promise<Table[]> {
  const { rows } = await client.query<Table>(`
    SELECT c.relname AS name, c.relkind AS kind, c.relowner::regrole::text AS owner,
           c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
           CASE WHEN a.attname IS NULL THEN 'none' WHEN a.attnotnull THEN 'needed' ELSE 'nullable' END AS tenant,
           ARRAY(SELECT r FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) r
                  WHERE has_table_privilege('${roles.app}', c.oid, r)) AS rights
      FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname`);
  return rows;
}

function tableBreaches(table: Table, { withoutTenant }: TenancyExceptions): string[] {
  const { name, kind, owner, enabled, forced, tenant, rights } = table;
  const breaches: string[] = [];
  if (owner !== roles.owner) breaches.push(`${name} is owned by ${owner}`);
  if (kind === "v" || kind === "m" || kind === "f")
    breaches.push(`${name} is no table: row-level security is another's there`);
  for (const right of ["TRUNCATE", "REFERENCES", "TRIGGER"]) {
    if (rights.includes(right))
      breaches.push(`${name}: the app role has ${right}, which row-level security does not bound`);
  }
  if (tenant === "none") {
    if (!(name in withoutTenant)) breaches.push(`${name} has no tenant_id, and no reason is given`);
    if (rights.includes("SELECT")) breaches.push(`${name} has no tenant_id, and the app role reads it`);
    return breaches;
  }
  if (name in withoutTenant) breaches.push(`${name} has a tenant_id, and a reason why not`);
  if (tenant === "nullable") breaches.push(`${name}: tenant_id may be NULL`);
  if (!enabled) breaches.push(`${name}: row-level security is not enabled`);
  if (!forced) breaches.push(`${name}: row-level security is not forced`);
  return breaches;
}

async function readPolicies(client: pg.ClientBase): Promise<Policy[]> {
  const { rows } = await client.query<Policy>(`
    SELECT polrelid::regclass::text AS table_name, polname AS name, polcmd AS command,
           ARRAY(SELECT CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END FROM unnest(polroles) r) AS to_roles,
           pg_get_expr(polqual, polrelid) AS using_expression, pg_get_expr(polwithcheck, polrelid) AS check_expression
      FROM pg_policy ORDER BY 1, 2`);
  return rows;
}

/** A policy for all commands has both expressions; one for INSERT can have WITH CHECK only, which here says what it lets in. */
function policyBreaches(policy: Policy): string[] {
  const { table_name, name, command, to_roles, using_expression, check_expression } = policy;
  const which = `policy ${name} on ${table_name}`;
  if (to_roles.includes("public")) return [`${which} is for everybody`];
  if (!to_roles.includes(roles.app)) return [];
  // Marks name an event and nothing of a tenant; the app role writes them and can't read them.
  if (table_name === "outbox_pending" && command === "a") return [];
  const breaches: string[] = [];
  if (command !== "*") breaches.push(`${which} is for one command only`);
  if (using_expression !== OWN_TENANT) breaches.push(`${which} has USING ${using_expression}`);
  if (check_expression !== OWN_TENANT) breaches.push(`${which} has WITH CHECK ${check_expression}`);
  return breaches;
}

/** Keys and references of tables with a tenant: without it in them, one tenant could refer to another's row, or learn of it. */
async function keyBreaches(client: pg.ClientBase, { withoutTenantInKey }: TenancyExceptions): Promise<string[]> {
  const { rows } = await client.query<{ key: string }>(`
    SELECT format('%s: %s', k.conrelid::regclass, pg_get_constraintdef(k.oid)) AS key
      FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attname = 'tenant_id' AND NOT a.attisdropped
     WHERE k.contype IN ('p', 'u', 'f') AND k.connamespace = 'public'::regnamespace AND a.attnum <> ALL (k.conkey)
     UNION ALL
    SELECT format('%s: %s', i.indrelid::regclass, pg_get_indexdef(i.indexrelid))
      FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'tenant_id' AND NOT a.attisdropped
     WHERE i.indisunique AND a.attnum <> ALL (i.indkey::smallint[])
       AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
     ORDER BY 1`);
  const found = new Set(rows.map(({ key }) => key));
  return [
    ...[...found]
      .filter((key) => !(key in withoutTenantInKey))
      .map((key) => `${key} leaves the tenant out, and no reason is given`),
    ...Object.keys(withoutTenantInKey)
      .filter((key) => !found.has(key))
      .map((key) => `${key}: a reason is given, and there is no such key`),
  ];
}

function unusedExceptions(tables: readonly Table[], { withoutTenant }: TenancyExceptions): string[] {
  const names = new Set(tables.map(({ name }) => name));
  return Object.keys(withoutTenant)
    .filter((name) => !names.has(name))
    .map((name) => `${name}: a reason is given, and there is no such table`);
}

async function roleBreaches(client: pg.ClientBase): Promise<string[]> {
  const serving = [roles.app, roles.system];
  const { rows } = await client.query<{ breach: string }>(
    `SELECT format('%s is a superuser or bypasses row-level security', rolname) AS breach
       FROM pg_roles WHERE rolname = ANY ($1) AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication)
      UNION ALL
     SELECT format('%s is a member of %s', member::regrole, roleid::regrole)
       FROM pg_auth_members WHERE member::regrole::text = ANY ($1)
      UNION ALL
     SELECT format('%s owns %s', relowner::regrole, oid::regclass)
       FROM pg_class WHERE relowner::regrole::text = ANY ($1) AND relkind <> 't' AND relpersistence <> 't'
      UNION ALL
     SELECT format('%s owns the function %s', proowner::regrole, oid::regprocedure)
       FROM pg_proc WHERE proowner::regrole::text = ANY ($1)
      UNION ALL
     SELECT format('%s may create in the schema %s', role, nspname)
       FROM pg_namespace, unnest($1::text[]) AS role WHERE nspname = 'public' AND has_schema_privilege(role, oid, 'CREATE')`,
    [serving],
  );
  return rows.map(({ breach }) => breach);
}

async function definerBreaches(client: pg.ClientBase): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    "SELECT oid::regprocedure::text AS name FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace",
  );
  return rows.map(({ name }) => `the function ${name} runs with its owner's rights`);
}
