import { fileURLToPath } from "node:url";
import { migrate } from "@licet/platform/database/migrate";
import { asAdministrator, ensureDatabase, ensureRoles, roles, roleUrl } from "@licet/platform/database/roles";
import type pg from "pg";
import { type LicensingUrls, PLAN, PRODUCT, TENANT } from "./licensing.ts";

/** A database with a number of licenses, their customers, keys, history and stored replies. */
export interface LicensingDatabase {
  readonly urls: LicensingUrls;
  readonly adminUrl: string;
  readonly size: number;
}

/** Licenses of one customer; customers of one e-mail. */
const PER_CUSTOMER = 2;
const PER_EMAIL = 2;
/** Rows of one statement, so that none runs for minutes. */
const BATCH = 50_000;

/** The customers, e-mails and licenses of a database, by number from 0. */
export const customerOf = (license: number): string => `customer-${Math.floor(license / PER_CUSTOMER)}`;
export const emailOf = (customer: number): string => `desk-${Math.floor(customer / PER_EMAIL)}@bench.example`;
export const licenseOf = (license: number): string =>
  `01930000-0000-7000-8000-${license.toString(16).padStart(12, "0")}`;
export const customersOf = ({ size }: { readonly size: number }): number => size / PER_CUSTOMER;

/** Creates and migrates a database on a server. */
export async function createLicensingDatabase(serverUrl: string, size: number): Promise<LicensingDatabase> {
  const name = `bench_${size}`;
  await ensureRoles(serverUrl);
  await ensureDatabase(serverUrl, name);
  const folder = fileURLToPath(new URL("../services/licensing/migrations", import.meta.url));
  await migrate({ url: roleUrl(serverUrl, roles.owner, name), folder });
  const adminUrl = new URL(serverUrl);
  adminUrl.pathname = `/${name}`;
  return {
    urls: { appUrl: roleUrl(serverUrl, roles.app, name), systemUrl: roleUrl(serverUrl, roles.system, name) },
    adminUrl: adminUrl.href,
    size,
  };
}

/**
 * Fills the tables with rows as the service would have written them, by SQL, as half a million calls would take too long:
 * what matters is how many there are and that indexes hold them. Tenant, product and plan must exist.
 */
export async function fill({ adminUrl, size }: LicensingDatabase): Promise<void> {
  await asAdministrator(adminUrl, async (client) => {
    for (let from = 0; from < size; from += BATCH) {
      const to = Math.min(size, from + BATCH) - 1;
      for (const statement of statements) await client.query(statement, [from, to]);
    }
    await client.query("VACUUM ANALYZE");
  });
}

const customer = `'customer-' || i / ${PER_CUSTOMER}`;
const license = `('01930000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid`;
const key = `('01940000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid`;
const event = `('01950000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid`;
const numbers = "generate_series($1::int, $2::int) AS i";

/** Each is for the licenses from $1 to $2. */
const statements: readonly string[] = [
  `INSERT INTO customer (tenant_id, customer_id, name, email, domain, industry, employee_count, entitlement_version, created_at)
   SELECT '${TENANT}', ${customer}, 'Customer', 'desk-' || i / ${PER_CUSTOMER * PER_EMAIL} || '@bench.example', '', '', 0, 10,
          now() - interval '1 year'
     FROM ${numbers} WHERE i % ${PER_CUSTOMER} = 0`,
  `INSERT INTO license (tenant_id, license_id, customer_id, product, plan, plan_version, type, status, valid_from, valid_until,
                        grace_days, metadata, created_at, updated_at, told_status, due_at)
   SELECT '${TENANT}', ${license}, ${customer}, '${PRODUCT}', '${PLAN}', 1, 'standard', 'active', now() - interval '1 year',
          now() + interval '1 year', 3, '{}', now() - interval '1 year' + i * interval '1 ms', now(), 'active',
          now() + interval '1 year'
     FROM ${numbers}`,
  `INSERT INTO license_key (tenant_id, key_id, customer_id, format, prefix, hint, key_hash, hash_key, sealed, issued_at)
   SELECT '${TENANT}', ${key}, ${customer}, 'opaque', 'TS', 'TS-…-0000', sha256(i::text::bytea), 'bench', '\\x00', now()
     FROM ${numbers}`,
  `INSERT INTO keyed_license (tenant_id, key_id, product, license_id)
   SELECT '${TENANT}', ${key}, '${PRODUCT}', ${license} FROM ${numbers}`,
  `INSERT INTO event (event_id, tenant_id, stream, version, type, payload, actor)
   SELECT ${event}, '${TENANT}', 'customer/' || ${customer}, 1 + i % ${PER_CUSTOMER}, 'licet.license.provisioned.v1',
          sha256(i::text::bytea) || sha256((-i)::text::bytea), 'bench'
     FROM ${numbers}`,
  `INSERT INTO license_history (tenant_id, event_id, customer_id, version, license_id, cause, actor, reason, ip_address,
                                user_agent, after, notice_days, effective_at)
   SELECT '${TENANT}', ${event}, ${customer}, 1 + i % ${PER_CUSTOMER}, ${license}, 2, 'bench', '', '', '',
          sha256(i::text::bytea), 0, now()
     FROM ${numbers}`,
  `INSERT INTO idempotency (tenant_id, method, key, request_hash, reply)
   SELECT '${TENANT}', 'licet.licensing.v1.LicensingService/ProvisionLicense', 'filled-' || i, sha256(i::text::bytea), '\\x00'
     FROM ${numbers}`,
];

/** Marks a customer's version, see `MARKED_VERSION`. */
export async function setVersion(adminUrl: string, customerId: string, version: bigint): Promise<void> {
  await asAdministrator(adminUrl, (client: pg.Client) =>
    client.query("UPDATE customer SET entitlement_version = $1 WHERE tenant_id = $2 AND customer_id = $3", [
      version,
      TENANT,
      customerId,
    ]),
  );
}
