import { keepPlan } from "@licet/platform/database/session";
import type { Kysely } from "kysely";
import { sql } from "kysely";
import type { License } from "../domain/license.ts";
import { licenseColumns, onTerms } from "./licenses.ts";
import { type LicenseRow, licenseFromRow } from "./mapping.ts";
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
 * transaction's tenant, under the system role those of all. One statement reads it, so a version comes with the licenses
 * that it was raised for.
 */
export async function listSnapshots(
  db: Kysely<DB>,
  after: { tenantId: string; customerId: string },
  limit: number,
): Promise<Snapshot[]> {
  const page = customers(db)
    .where(({ eb, refTuple, tuple }) =>
      eb(refTuple("tenant_id", "customer_id"), ">", tuple(after.tenantId, after.customerId)),
    )
    .orderBy("tenant_id")
    .orderBy("customer_id")
    .limit(limit);
  return snapshotsFromRows(await withLicenses(db, page).execute());
}

/** One customer's snapshot, or undefined. */
export async function findSnapshot(db: Kysely<DB>, tenant: string, customerId: string): Promise<Snapshot | undefined> {
  const customer = customers(db).where("tenant_id", "=", tenant).where("customer_id", "=", customerId);
  return snapshotsFromRows(await withLicenses(db, customer).modifyEnd(keepPlan).execute())[0];
}

/** The snapshots of those of the customers that the tenant has. */
export async function findSnapshots(
  db: Kysely<DB>,
  tenant: string,
  customerIds: readonly string[],
): Promise<Snapshot[]> {
  if (customerIds.length === 0) return [];
  const some = customers(db).where("tenant_id", "=", tenant).where("customer_id", "in", customerIds);
  return snapshotsFromRows(await withLicenses(db, some).execute());
}

function customers(db: Kysely<DB>) {
  return db
    .selectFrom("customer")
    .select([
      "tenant_id as holder_tenant",
      "customer_id as holder",
      "entitlement_version",
      sql<Date>`now()`.as("read_at"),
    ]);
}

function withLicenses(db: Kysely<DB>, some: ReturnType<typeof customers>) {
  return db
    .selectFrom(some.as("customer"))
    .leftJoin("license", (join) =>
      join
        .onRef("license.tenant_id", "=", "customer.holder_tenant")
        .onRef("license.customer_id", "=", "customer.holder"),
    )
    .leftJoin("plan_version", onTerms)
    .selectAll("customer")
    .select(licenseColumns)
    .orderBy("customer.holder_tenant")
    .orderBy("customer.holder")
    .orderBy("license.created_at")
    .orderBy("license.license_id");
}

/** @param rows - by customer */
function snapshotsFromRows(rows: Awaited<ReturnType<ReturnType<typeof withLicenses>["execute"]>>): Snapshot[] {
  const snapshots: Snapshot[] = [];
  for (const row of rows) {
    const { holder_tenant: tenantId, holder: customerId, entitlement_version: version, read_at: issuedAt } = row;
    let snapshot = snapshots.at(-1);
    if (snapshot?.tenantId !== tenantId || snapshot.customerId !== customerId) {
      snapshot = { tenantId, customerId, version, licenses: [], issuedAt };
      snapshots.push(snapshot);
    }
    // Of the columns that the join made nullable, none is where there is a license.
    if (row.license_id !== null) snapshot.licenses.push(licenseFromRow(row as LicenseRow));
  }
  return snapshots;
}
