import type { ServiceError } from "@licet/platform/errors";
import type { Kysely, Selectable, Transaction } from "kysely";
import type { KeyFormat, KeyStyle } from "../domain/license-key.ts";
import type { Plan } from "../domain/terms.ts";
import { failure } from "../errors.ts";
import { limitsToJson, planFromRow, usagePricesToJson } from "./mapping.ts";
import type { DB, Product as ProductTable } from "./schema.ts";

/** What a tenant sells. */
export interface Product {
  product: string;
  name: string;
  graceDays: number;
  /** How many days an installation may go on without reaching Licet. */
  offlineDays: number;
  /** How its license keys look; absent: it has none. */
  keyStyle?: KeyStyle;
  createdAt: Date;
}

/** A named capability of a product. */
export interface Feature {
  product: string;
  feature: string;
  name: string;
  reduceOnly: boolean;
  /** How many seconds it stays allowed while deciders are cut off; 0: not at all (`closed`). */
  failGraceSeconds: number;
  createdAt: Date;
}

/** A product and all its features in a version, as deciders need them. */
export interface Catalog {
  tenantId: string;
  product: string;
  name: string;
  version: bigint;
  features: Pick<Feature, "feature" | "reduceOnly" | "failGraceSeconds">[];
}

/** Stores a product in catalogue version 1. Returns false when one of this code exists. */
export async function insertProduct(tx: Transaction<DB>, tenant: string, product: Product): Promise<boolean> {
  const result = await tx
    .insertInto("product")
    .values({
      tenant_id: tenant,
      product: product.product,
      name: product.name,
      grace_days: product.graceDays,
      offline_days: product.offlineDays,
      key_format: product.keyStyle?.format ?? null,
      key_prefix: product.keyStyle?.prefix ?? null,
      created_at: product.createdAt,
    })
    .onConflict((conflict) => conflict.columns(["tenant_id", "product"]).doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
}

const productColumns = [
  "product",
  "name",
  "grace_days",
  "offline_days",
  "key_format",
  "key_prefix",
  "created_at",
] as const;

function productFromRow(row: Pick<Selectable<ProductTable>, (typeof productColumns)[number]>): Product {
  const { key_format: format, key_prefix: prefix } = row;
  return {
    product: row.product,
    name: row.name,
    graceDays: row.grace_days,
    offlineDays: row.offline_days,
    ...(format !== null && prefix !== null && { keyStyle: { format: format as KeyFormat, prefix } }),
    createdAt: row.created_at,
  };
}

/**
 * A product.
 *
 * @throws ServiceError NOT_FOUND `PRODUCT_NOT_FOUND`
 */
export async function getProduct(tx: Transaction<DB>, tenant: string, product: string): Promise<Product> {
  const found = await findProduct(tx, tenant, product);
  if (!found) throw productNotFound(product);
  return found;
}

/** A product, or undefined. */
export async function findProduct(tx: Transaction<DB>, tenant: string, product: string): Promise<Product | undefined> {
  const row = await tx
    .selectFrom("product")
    .select(productColumns)
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .executeTakeFirst();
  return row && productFromRow(row);
}

function productNotFound(product: string): ServiceError {
  return failure("PRODUCT_NOT_FOUND", `There is no product ${product}.`);
}

/** Up to `limit` products with a code after `after`, by code. */
export async function listProducts(
  tx: Transaction<DB>,
  tenant: string,
  after: string,
  limit: number,
): Promise<Product[]> {
  const rows = await tx
    .selectFrom("product")
    .select(productColumns)
    .where("tenant_id", "=", tenant)
    .where("product", ">", after)
    .orderBy("product")
    .limit(limit)
    .execute();
  return rows.map(productFromRow);
}

/**
 * Raises a product's catalogue version under its row's lock, which every change of its features takes first.
 *
 * @throws ServiceError NOT_FOUND `PRODUCT_NOT_FOUND`
 */
export async function raiseCatalogVersion(tx: Transaction<DB>, tenant: string, product: string): Promise<void> {
  const result = await tx
    .updateTable("product")
    .set((eb) => ({ catalog_version: eb("catalog_version", "+", 1n) }))
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .executeTakeFirst();
  if (result.numUpdatedRows === 0n) throw productNotFound(product);
}

/** Stores a feature. Returns false when the product has one of this code. */
export async function insertFeature(tx: Transaction<DB>, tenant: string, feature: Feature): Promise<boolean> {
  const result = await tx
    .insertInto("feature")
    .values({
      tenant_id: tenant,
      product: feature.product,
      feature: feature.feature,
      name: feature.name,
      reduce_only: feature.reduceOnly,
      fail_grace_seconds: feature.failGraceSeconds,
      created_at: feature.createdAt,
    })
    .onConflict((conflict) => conflict.columns(["tenant_id", "product", "feature"]).doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
}

/** How many features a product has. */
export async function countFeatures(tx: Transaction<DB>, tenant: string, product: string): Promise<number> {
  const row = await tx
    .selectFrom("feature")
    .select((eb) => eb.fn.countAll<bigint>().as("count"))
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

/**
 * Refuses codes that are no features of the product; `*` stands for all and always passes.
 *
 * @throws ServiceError NOT_FOUND `FEATURE_NOT_FOUND` that names the codes
 */
export async function checkFeaturesExist(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  codes: readonly string[],
): Promise<void> {
  const named = codes.filter((code) => code !== "*");
  if (named.length === 0) return;
  const rows = await tx
    .selectFrom("feature")
    .select("feature")
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .where("feature", "in", named)
    .execute();
  const known = new Set(rows.map((row) => row.feature));
  const missing = named.filter((code) => !known.has(code));
  if (missing.length > 0) {
    throw failure("FEATURE_NOT_FOUND", `Product ${product} has no feature ${missing.join(", ")}.`, {
      features: missing.join(","),
    });
  }
}

/** Up to `limit` features by product and code, behind `after`; of one product, or of all when it is empty. */
export async function listFeatures(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  after: { product: string; feature: string },
  limit: number,
): Promise<Feature[]> {
  const rows = await tx
    .selectFrom("feature")
    .select(["product", "feature", "name", "reduce_only", "fail_grace_seconds", "created_at"])
    .where("tenant_id", "=", tenant)
    .$if(product !== "", (query) => query.where("product", "=", product))
    .where(({ eb, refTuple, tuple }) => eb(refTuple("product", "feature"), ">", tuple(after.product, after.feature)))
    .orderBy("product")
    .orderBy("feature")
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    product: row.product,
    feature: row.feature,
    name: row.name,
    reduceOnly: row.reduce_only,
    failGraceSeconds: row.fail_grace_seconds,
    createdAt: row.created_at,
  }));
}

/** Stores a new plan with its first version. Returns false when the product has one of this code. */
export async function insertPlan(tx: Transaction<DB>, tenant: string, plan: Plan): Promise<boolean> {
  const result = await tx
    .insertInto("plan")
    .values({ tenant_id: tenant, product: plan.product, plan: plan.plan, name: plan.name })
    .onConflict((conflict) => conflict.columns(["tenant_id", "product", "plan"]).doNothing())
    .executeTakeFirst();
  if (result.numInsertedOrUpdatedRows !== 1n) return false;
  await insertPlanVersion(tx, tenant, plan);
  return true;
}

/** Raises a plan's latest version under its row's lock. Returns its name and the new version, or undefined. */
export async function raisePlanVersion(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  plan: string,
): Promise<{ name: string; latest_version: number } | undefined> {
  return tx
    .updateTable("plan")
    .set((eb) => ({ latest_version: eb("latest_version", "+", 1) }))
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .where("plan", "=", plan)
    .returning(["name", "latest_version"])
    .executeTakeFirst();
}

/** Stores a version of a plan, for good. */
export async function insertPlanVersion(tx: Transaction<DB>, tenant: string, plan: Plan): Promise<void> {
  const { terms } = plan;
  await tx
    .insertInto("plan_version")
    .values({
      tenant_id: tenant,
      product: plan.product,
      plan: plan.plan,
      version: plan.version,
      type: terms.type,
      features: [...terms.features],
      limits: limitsToJson(terms.limits),
      price_currency: terms.price?.currency ?? null,
      price_amount_minor: terms.price?.amountMinor ?? null,
      price_cycle: terms.price?.cycle ?? null,
      usage_prices: usagePricesToJson(terms.usagePrices),
      term_days: terms.termDays,
      seats: terms.seats ?? null,
      grantable: [...terms.grantable],
      published_at: plan.publishedAt,
    })
    .execute();
}

function plansWithVersion(tx: Transaction<DB>, tenant: string) {
  return tx
    .selectFrom("plan")
    .innerJoin("plan_version", (join) =>
      join
        .onRef("plan_version.tenant_id", "=", "plan.tenant_id")
        .onRef("plan_version.product", "=", "plan.product")
        .onRef("plan_version.plan", "=", "plan.plan"),
    )
    .where("plan.tenant_id", "=", tenant)
    .select([
      "plan.name",
      "plan.latest_version",
      "plan_version.tenant_id",
      "plan_version.product",
      "plan_version.plan",
      "plan_version.version",
      "plan_version.type",
      "plan_version.features",
      "plan_version.limits",
      "plan_version.price_currency",
      "plan_version.price_amount_minor",
      "plan_version.price_cycle",
      "plan_version.usage_prices",
      "plan_version.term_days",
      "plan_version.seats",
      "plan_version.grantable",
      "plan_version.published_at",
    ]);
}

/**
 * A plan in a version, the latest when `version` is 0.
 *
 * @throws ServiceError NOT_FOUND `PLAN_NOT_FOUND`
 */
export async function getPlan(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  plan: string,
  version: number,
): Promise<Plan> {
  const row = await plansWithVersion(tx, tenant)
    .where("plan.product", "=", product)
    .where("plan.plan", "=", plan)
    .where((eb) => eb("plan_version.version", "=", version === 0 ? eb.ref("plan.latest_version") : version))
    .executeTakeFirst();
  if (!row) {
    const which = version === 0 ? "" : ` in version ${version}`;
    throw failure("PLAN_NOT_FOUND", `There is no plan ${plan}${which} of product ${product}.`);
  }
  return planFromRow(row);
}

/** Up to `limit` plans in their latest versions by product and code, behind `after`; of one product, or of all. */
export async function listPlans(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  after: { product: string; plan: string },
  limit: number,
): Promise<Plan[]> {
  const rows = await plansWithVersion(tx, tenant)
    .whereRef("plan_version.version", "=", "plan.latest_version")
    .$if(product !== "", (query) => query.where("plan.product", "=", product))
    .where(({ eb, refTuple, tuple }) =>
      eb(refTuple("plan.product", "plan.plan"), ">", tuple(after.product, after.plan)),
    )
    .orderBy("plan.product")
    .orderBy("plan.plan")
    .limit(limit)
    .execute();
  return rows.map(planFromRow);
}

/**
 * Up to `limit` product catalogues by tenant and product, behind `after`. Under the app role those of the
 * transaction's tenant, under the system role those of all.
 */
export async function listCatalogs(
  db: Kysely<DB>,
  after: { tenantId: string; product: string },
  limit: number,
): Promise<Catalog[]> {
  const products = await db
    .selectFrom("product")
    .select(["tenant_id", "product", "name", "catalog_version"])
    .where(({ eb, refTuple, tuple }) => eb(refTuple("tenant_id", "product"), ">", tuple(after.tenantId, after.product)))
    .orderBy("tenant_id")
    .orderBy("product")
    .limit(limit)
    .execute();
  return Promise.all(
    products.map(async (row) => ({
      tenantId: row.tenant_id,
      product: row.product,
      name: row.name,
      version: row.catalog_version,
      features: await catalogFeatures(db, row.tenant_id, row.product),
    })),
  );
}

/** A product's catalogue as it is inside the transaction; the product must exist. */
export async function getCatalog(tx: Transaction<DB>, tenant: string, product: string): Promise<Catalog> {
  const row = await tx
    .selectFrom("product")
    .select(["name", "catalog_version"])
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .executeTakeFirstOrThrow();
  return {
    tenantId: tenant,
    product,
    name: row.name,
    version: row.catalog_version,
    features: await catalogFeatures(tx, tenant, product),
  };
}

async function catalogFeatures(db: Kysely<DB>, tenant: string, product: string): Promise<Catalog["features"]> {
  const rows = await db
    .selectFrom("feature")
    .select(["feature", "reduce_only", "fail_grace_seconds"])
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .orderBy("feature")
    .execute();
  return rows.map((row) => ({
    feature: row.feature,
    reduceOnly: row.reduce_only,
    failGraceSeconds: row.fail_grace_seconds,
  }));
}
