import type { ServiceError } from "@licet/platform/errors";
import type { Transaction } from "kysely";
import type { AddOn } from "../domain/add-on.ts";
import { failure } from "../errors.ts";
import { addedLimitsToJson, addOnFromRow, offersToJson } from "./add-on-mapping.ts";
import type { DB } from "./schema.ts";

/** Stores a new add-on with its first version. Returns false when the product has one of this code. */
export async function insertAddOn(tx: Transaction<DB>, tenant: string, addOn: AddOn): Promise<boolean> {
  const result = await tx
    .insertInto("add_on")
    .values({ tenant_id: tenant, product: addOn.product, add_on: addOn.addOn, ...changeableColumns(addOn) })
    .onConflict((conflict) => conflict.columns(["tenant_id", "product", "add_on"]).doNothing())
    .executeTakeFirst();
  if (result.numInsertedOrUpdatedRows !== 1n) return false;
  await insertAddOnVersion(tx, tenant, addOn);
  return true;
}

function changeableColumns(addOn: AddOn) {
  return {
    name: addOn.name,
    latest_version: addOn.latestVersion,
    retired_at: addOn.retiredAt ?? null,
    revision: addOn.revision,
  };
}

/** Stores what can change of an add-on as it now is; the product's row is locked. */
export async function updateAddOn(tx: Transaction<DB>, tenant: string, addOn: AddOn): Promise<void> {
  await tx
    .updateTable("add_on")
    .set(changeableColumns(addOn))
    .where("tenant_id", "=", tenant)
    .where("product", "=", addOn.product)
    .where("add_on", "=", addOn.addOn)
    .execute();
}

/** Stores a version of an add-on, for good. */
export async function insertAddOnVersion(tx: Transaction<DB>, tenant: string, addOn: AddOn): Promise<void> {
  const { terms } = addOn;
  await tx
    .insertInto("add_on_version")
    .values({
      tenant_id: tenant,
      product: addOn.product,
      add_on: addOn.addOn,
      version: addOn.version,
      features: [...terms.features],
      limits: JSON.stringify(addedLimitsToJson(terms.limits)),
      seats: terms.seats,
      offers: offersToJson(terms.offers),
      max_quantity: terms.maxQuantity,
      published_at: addOn.publishedAt,
    })
    .execute();
}

function addOnsWithVersion(tx: Transaction<DB>, tenant: string) {
  return tx
    .selectFrom("add_on")
    .innerJoin("add_on_version", (join) =>
      join
        .onRef("add_on_version.tenant_id", "=", "add_on.tenant_id")
        .onRef("add_on_version.product", "=", "add_on.product")
        .onRef("add_on_version.add_on", "=", "add_on.add_on"),
    )
    .where("add_on.tenant_id", "=", tenant)
    .select([
      "add_on.name",
      "add_on.latest_version",
      "add_on.retired_at",
      "add_on.revision",
      "add_on_version.tenant_id",
      "add_on_version.product",
      "add_on_version.add_on",
      "add_on_version.version",
      "add_on_version.features",
      "add_on_version.limits",
      "add_on_version.seats",
      "add_on_version.offers",
      "add_on_version.max_quantity",
      "add_on_version.published_at",
    ]);
}

/** Those add-ons of a product that exist of the ones asked for, by code; in their latest versions where it is 0. */
export async function findAddOns(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  asked: readonly { addOn: string; version: number }[],
): Promise<ReadonlyMap<string, AddOn>> {
  if (asked.length === 0) return new Map();
  const rows = await addOnsWithVersion(tx, tenant)
    .where("add_on.product", "=", product)
    .where((eb) =>
      eb.or(
        asked.map(({ addOn, version }) =>
          eb.and([
            eb("add_on.add_on", "=", addOn),
            eb("add_on_version.version", "=", version === 0 ? eb.ref("add_on.latest_version") : version),
          ]),
        ),
      ),
    )
    .execute();
  return new Map(rows.map((row) => [row.add_on, addOnFromRow(row)]));
}

/**
 * An add-on in a version, the latest when `version` is 0.
 *
 * @throws ServiceError NOT_FOUND `ADD_ON_NOT_FOUND`
 */
export async function getAddOn(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  addOn: string,
  version: number,
): Promise<AddOn> {
  const found = (await findAddOns(tx, tenant, product, [{ addOn, version }])).get(addOn);
  if (!found) throw addOnNotFound(product, addOn, version);
  return found;
}

/** That a product has no such add-on, or the add-on no such version. */
export function addOnNotFound(product: string, addOn: string, version: number): ServiceError {
  const which = version === 0 ? "" : ` in version ${version}`;
  return failure("ADD_ON_NOT_FOUND", `There is no add-on ${addOn}${which} of product ${product}.`);
}

/** Up to `limit` add-ons in their latest versions by product and code, behind `after`; of one product, or of all. */
export async function listAddOns(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  after: { product: string; addOn: string },
  limit: number,
): Promise<AddOn[]> {
  const rows = await addOnsWithVersion(tx, tenant)
    .whereRef("add_on_version.version", "=", "add_on.latest_version")
    .$if(product !== "", (query) => query.where("add_on.product", "=", product))
    .where(({ eb, refTuple, tuple }) =>
      eb(refTuple("add_on.product", "add_on.add_on"), ">", tuple(after.product, after.addOn)),
    )
    .orderBy("add_on.product")
    .orderBy("add_on.add_on")
    .limit(limit)
    .execute();
  return rows.map(addOnFromRow);
}
