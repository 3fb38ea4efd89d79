import { type Kysely, sql } from "kysely";
import type { Selection } from "../domain/bulk.ts";
import type { License } from "../domain/license.ts";
import { licensesWithTerms } from "./licenses.ts";
import { licenseFromRow } from "./mapping.ts";
import type { DB } from "./schema.ts";

/** Up to `limit` selected licenses of any status by id, behind `after`. */
export async function listSelected(
  db: Kysely<DB>,
  tenant: string,
  selection: Selection,
  after: string | undefined,
  limit: number,
): Promise<License[]> {
  const { product, plan, planVersions, customerIds, licenseIds } = selection;
  const rows = await licensesWithTerms(db)
    .where("license.tenant_id", "=", tenant)
    .$if(after !== undefined, (query) => query.where("license.license_id", ">", after ?? ""))
    .$if(product !== "", (query) => query.where("license.product", "=", product))
    .$if(plan !== "", (query) => query.where("license.plan", "=", plan))
    .$if(planVersions.length > 0, (query) => query.where("license.plan_version", "in", [...planVersions]))
    .$if(customerIds.length > 0, (query) => query.where("license.customer_id", "in", [...customerIds]))
    .$if(licenseIds.length > 0, (query) => query.where("license.license_id", "in", [...licenseIds]))
    .orderBy("license.license_id")
    .limit(limit)
    .execute();
  return rows.map(licenseFromRow);
}

/** How many licenses are selected, of any status. */
export async function countSelected(db: Kysely<DB>, tenant: string, selection: Selection): Promise<bigint> {
  const { product, plan, planVersions, customerIds, licenseIds } = selection;
  const row = await db
    .selectFrom("license")
    .select(sql<bigint>`count(*)`.as("count"))
    .where("tenant_id", "=", tenant)
    .$if(product !== "", (query) => query.where("product", "=", product))
    .$if(plan !== "", (query) => query.where("plan", "=", plan))
    .$if(planVersions.length > 0, (query) => query.where("plan_version", "in", [...planVersions]))
    .$if(customerIds.length > 0, (query) => query.where("customer_id", "in", [...customerIds]))
    .$if(licenseIds.length > 0, (query) => query.where("license_id", "in", [...licenseIds]))
    .executeTakeFirstOrThrow();
  return row.count;
}
