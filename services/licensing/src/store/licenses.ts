import type { Kysely, Transaction } from "kysely";
import { sql } from "kysely";
import type { License } from "../domain/license.ts";
import { failure } from "../errors.ts";
import { licenseFromRow, limitsToJson } from "./mapping.ts";
import type { DB } from "./schema.ts";

/** Licenses with the columns that the mapping reads; the plan version's terms are beside the license's own. */
export function licensesWithTerms(db: Kysely<DB>) {
  return db
    .selectFrom("license")
    .leftJoin("plan_version", (join) =>
      join
        .onRef("plan_version.tenant_id", "=", "license.tenant_id")
        .onRef("plan_version.product", "=", "license.product")
        .onRef("plan_version.plan", "=", "license.plan")
        .onRef("plan_version.version", "=", "license.plan_version"),
    )
    .select([
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
      "license.seats",
      "license.valid_from",
      "license.valid_until",
      "license.grace_days",
      "license.billing_cycle",
      "license.metadata",
      "license.created_at",
      "license.updated_at",
      "license.ended_at",
      "plan_version.features as plan_features",
      "plan_version.limits as plan_limits",
    ]);
}

/** Stores a license. Returns false when one of this id exists. */
export async function insertLicense(tx: Transaction<DB>, tenant: string, license: License): Promise<boolean> {
  const bare = license.plan === undefined;
  const result = await tx
    .insertInto("license")
    .values({
      tenant_id: tenant,
      license_id: license.licenseId,
      customer_id: license.customerId,
      product: license.product,
      plan: license.plan?.code ?? null,
      plan_version: license.plan?.version ?? null,
      type: license.type,
      status: license.decidedStatus,
      features: bare ? [...license.features] : null,
      limits: bare ? limitsToJson(license.limits) : null,
      seats: license.seats ?? null,
      valid_from: license.validFrom,
      valid_until: license.validUntil ?? null,
      grace_days: license.graceDays,
      billing_cycle: license.billingCycle ?? null,
      metadata: JSON.stringify(license.metadata),
      created_at: license.createdAt,
      updated_at: license.updatedAt,
    })
    .onConflict((conflict) => conflict.columns(["tenant_id", "license_id"]).doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
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
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

/** Stores what a change of status changes. The caller holds the customer row's lock. */
export async function updateLicenseStatus(tx: Transaction<DB>, tenant: string, license: License): Promise<void> {
  await tx
    .updateTable("license")
    .set({
      status: license.decidedStatus,
      status_reason: license.statusReason,
      updated_at: license.updatedAt,
      ended_at: license.endedAt ?? null,
    })
    .where("tenant_id", "=", tenant)
    .where("license_id", "=", license.licenseId)
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
              .where("customer.email", "<>", "")
              .where(sql`lower(customer.email)`, "=", sql`lower(${holder.email})`),
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
