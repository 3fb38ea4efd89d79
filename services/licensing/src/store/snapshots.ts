import type { Kysely } from "kysely";
import { sql } from "kysely";
import type { License } from "../domain/license.ts";
import { licensesWithTerms } from "./licenses.ts";
import { licenseFromRow } from "./mapping.ts";
import type { DB } from "./schema.ts";

/** Everything that holds for a customer in one version. */
export interface Snapshot {
  tenantId: string;
  customerId: string;
  version: bigint;
  /** Oldest first. */
  licenses: License[];
  /** The database's time of reading. */
  issuedAt: Date;
}

/**
 * Up to `limit` customers by tenant and id, behind `after`, with all their licenses. Under the app role those of the
 * transaction's tenant, under the system role those of all. Without the customer row's lock a snapshot's licenses may
 * be newer than its version, never older: the version is read first. The next event then brings the version.
 */
export async function listSnapshots(
  db: Kysely<DB>,
  after: { tenantId: string; customerId: string },
  limit: number,
): Promise<Snapshot[]> {
  return load(
    db,
    await db
      .selectFrom("customer")
      .select(["tenant_id", "customer_id", "entitlement_version", sql<Date>`now()`.as("issued_at")])
      .where(({ eb, refTuple, tuple }) =>
        eb(refTuple("tenant_id", "customer_id"), ">", tuple(after.tenantId, after.customerId)),
      )
      .orderBy("tenant_id")
      .orderBy("customer_id")
      .limit(limit)
      .execute(),
  );
}

/** One customer's snapshot, or undefined; see {@link listSnapshots} for how its version and licenses relate. */
export async function findSnapshot(db: Kysely<DB>, tenant: string, customerId: string): Promise<Snapshot | undefined> {
  return (await findSnapshots(db, tenant, [customerId]))[0];
}

/** The snapshots of those of the customers that the tenant has; see {@link listSnapshots}. */
export async function findSnapshots(
  db: Kysely<DB>,
  tenant: string,
  customerIds: readonly string[],
): Promise<Snapshot[]> {
  if (customerIds.length === 0) return [];
  const customers = await db
    .selectFrom("customer")
    .select(["tenant_id", "customer_id", "entitlement_version", sql<Date>`now()`.as("issued_at")])
    .where("tenant_id", "=", tenant)
    .where("customer_id", "in", customerIds)
    .execute();
  return load(db, customers);
}

async function load(
  db: Kysely<DB>,
  customers: { tenant_id: string; customer_id: string; entitlement_version: bigint; issued_at: Date }[],
): Promise<Snapshot[]> {
  if (customers.length === 0) return [];
  const rows = await licensesWithTerms(db)
    .where(({ eb, refTuple, tuple }) =>
      eb(
        refTuple("license.tenant_id", "license.customer_id"),
        "in",
        customers.map((customer) => tuple(customer.tenant_id, customer.customer_id)),
      ),
    )
    .orderBy("license.created_at")
    .orderBy("license.license_id")
    .execute();
  const held = Map.groupBy(rows, (row) => `${row.tenant_id}/${row.customer_id}`);
  return customers.map((customer) => ({
    tenantId: customer.tenant_id,
    customerId: customer.customer_id,
    version: customer.entitlement_version,
    licenses: (held.get(`${customer.tenant_id}/${customer.customer_id}`) ?? []).map(licenseFromRow),
    issuedAt: customer.issued_at,
  }));
}
