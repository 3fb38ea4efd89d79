import { keepPlan, keepPlanDontWait } from "@licet/platform/database/session";
import type { JoinCallbackExpression, Kysely, Transaction } from "kysely";
import { sql } from "kysely";
import type { License } from "../domain/license.ts";
import { failure } from "../errors.ts";
import { changeableColumns, licenseFromRow } from "./mapping.ts";
import type { DB } from "./schema.ts";

/** The columns that the mapping reads; the plan version's terms are beside the license's own. */
export const licenseColumns = [
  "license.tenant_id",
  "license.license_id",
  "license.customer_id",
  "license.product",
  "license.plan",
  "license.plan_version",
  "license.type",
  "license.status",
  "license.status_reason",
  "license.features",
  "license.limits",
  "license.grants",
  "license.seats",
  "license.add_ons",
  "license.valid_from",
  "license.valid_until",
  "license.grace_days",
  "license.billing_cycle",
  "license.metadata",
  "license.created_at",
  "license.updated_at",
  "license.ended_at",
  "license.revision",
  "license.auto_renew",
  "license.cancels_at",
  "license.cancel_reason",
  "license.unpaid_grace_until",
  "license.suspended_by_billing",
  "license.told_status",
  "license.told_notice_days",
  "license.told_renewal",
  "plan_version.features as plan_features",
  "plan_version.limits as plan_limits",
  "plan_version.attributes as plan_attributes",
] as const;

/** Joins a license with the terms of its plan's version. */
export const onTerms: JoinCallbackExpression<DB, "license", "plan_version"> = (join) =>
  join
    .onRef("plan_version.tenant_id", "=", "license.tenant_id")
    .onRef("plan_version.product", "=", "license.product")
    .onRef("plan_version.plan", "=", "license.plan")
    .onRef("plan_version.version", "=", "license.plan_version");

/** Licenses with the columns that the mapping reads. */
export function licensesWithTerms(db: Kysely<DB>) {
  return db.selectFrom("license").leftJoin("plan_version", onTerms).select(licenseColumns);
}

/**
 * Stores a license.
 *
 * @param dueAt - when the scheduler has something to do
 * @returns false when one of this id exists
 */
export async function insertLicense(
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  dueAt: Date | undefined,
): Promise<boolean> {
  return (await insertLicenses(tx, tenant, [{ license, dueAt }])) === 1;
}

/** Stores licenses; those whose id exists are left out. Returns how many were stored. */
export async function insertLicenses(
  tx: Transaction<DB>,
  tenant: string,
  licenses: readonly { readonly license: License; readonly dueAt: Date | undefined }[],
): Promise<number> {
  if (licenses.length === 0) return 0;
  const rows = licenses.map(({ license, dueAt }) => ({
    tenant_id: tenant,
    license_id: license.licenseId,
    product: license.product,
    created_at: license.createdAt,
    ...changeableColumns(license, dueAt),
  }));
  const insert = tx
    .insertInto("license")
    .values(rows)
    .onConflict((conflict) => conflict.columns(["tenant_id", "license_id"]).doNothing());
  const result = await (rows.length === 1 ? insert.modifyEnd(keepPlan) : insert).executeTakeFirst();
  return Number(result.numInsertedOrUpdatedRows ?? 0n);
}

/** Those of the licenses that the tenant has. */
export async function findLicenses(
  tx: Transaction<DB>,
  tenant: string,
  licenseIds: readonly string[],
): Promise<License[]> {
  if (licenseIds.length === 0) return [];
  const rows = await licensesWithTerms(tx)
    .where("license.tenant_id", "=", tenant)
    .where("license.license_id", "in", licenseIds)
    .execute();
  return rows.map(licenseFromRow);
}

/** Stores a license as it now is. The caller holds the customer row's lock. */
export async function updateLicense(
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  dueAt: Date | undefined,
): Promise<void> {
  await tx
    .updateTable("license")
    .set(changeableColumns(license, dueAt))
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", license.licenseId)
    .modifyEnd(keepPlanDontWait)
    .execute();
}

/**
 * A license.
 *
 * @throws ServiceError NOT_FOUND `LICENSE_NOT_FOUND`
 */
export async function getLicense(tx: Transaction<DB>, tenant: string, licenseId: string): Promise<License> {
  const row = await licensesWithTerms(tx)
    .where("license.tenant_id", "=", tenant)
    .where("license.license_id", "=", licenseId)
    .modifyEnd(keepPlan)
    .executeTakeFirst();
  if (!row) throw failure("LICENSE_NOT_FOUND", `There is no license ${licenseId}.`);
  return licenseFromRow(row);
}

/** How many licenses a customer holds, those that ended included. */
export async function countLicenses(tx: Transaction<DB>, tenant: string, customerId: string): Promise<number> {
  const row = await tx
    .selectFrom("license")
    .select((eb) => eb.fn.countAll<bigint>().as("count"))
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customerId)
    .modifyEnd(keepPlan)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

/** A license that the scheduler has something to do with. */
export interface DueLicense {
  tenantId: string;
  licenseId: string;
}

/** Up to `limit` licenses of all tenants that are due at `now`, the longest due first. For the system role. */
export async function listDueLicenses(db: Kysely<DB>, now: Date, limit: number): Promise<DueLicense[]> {
  const rows = await db
    .selectFrom("license")
    .select(["tenant_id", "license_id"])
    .where("due_at", "<=", now)
    .orderBy("due_at")
    .limit(limit)
    .execute();
  return rows.map((row) => ({ tenantId: row.tenant_id, licenseId: row.license_id }));
}

/** Puts off what the scheduler has to do with a license, so that others are not kept waiting by it. */
export async function postponeLicense(tx: Transaction<DB>, due: DueLicense, until: Date): Promise<void> {
  await tx
    .updateTable("license")
    .set({ due_at: until })
    .where("tenant_id", "=", due.tenantId)
    .where("license_id", "=", due.licenseId)
    .execute();
}

/** Whose licenses a list shows. */
export type Holder = { customerId: string } | { email: string };

/** Up to `limit` licenses of a holder, oldest first, behind the license `after`. */
export async function listLicenses(
  tx: Transaction<DB>,
  tenant: string,
  holder: Holder,
  after: { createdAt: Date; licenseId: string } | undefined,
  limit: number,
): Promise<License[]> {
  const rows = await licensesWithTerms(tx)
    .where("license.tenant_id", "=", tenant)
    .where((eb) =>
      "customerId" in holder
        ? eb("license.customer_id", "=", holder.customerId)
        : eb(
            "license.customer_id",
            "in",
            eb
              .selectFrom("customer")
              .select("customer.customer_id")
              .where("customer.tenant_id", "=", tenant)
              .where("customer.email_key", "<>", "")
              .where("customer.email_key", "=", sql<string>`lower(${holder.email})`),
          ),
    )
    .$if(after !== undefined, (query) =>
      query.where(({ eb, refTuple, tuple }) =>
        eb(
          refTuple("license.created_at", "license.license_id"),
          ">",
          tuple((after as { createdAt: Date }).createdAt, (after as { licenseId: string }).licenseId),
        ),
      ),
    )
    .orderBy("license.created_at")
    .orderBy("license.license_id")
    .limit(limit)
    .execute();
  return rows.map(licenseFromRow);
}
