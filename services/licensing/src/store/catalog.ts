import { keepPlan } from "@licet/platform/database/session";
import type { ServiceError } from "@licet/platform/errors";
import type { Kysely, Selectable, Transaction } from "kysely";
import type { KeyFormat } from "../domain/license-key.ts";
import type { Product } from "../domain/product.ts";
import type { Plan } from "../domain/terms.ts";
import { failure } from "../errors.ts";
import { limitsToJson, planFromRow, usagePricesToJson } from "./mapping.ts";
import type { DB, Feature as FeatureTable, Product as ProductTable } from "./schema.ts";
import { seatPolicyColumns, seatPolicyFromRow, seatPolicyToRow } from "./seats.ts";

/** A named capability of a product. */
export interface Feature {
  product: string;
  feature: string;
  name: string;
  reduceOnly: boolean;
  /** How many seconds it stays allowed while deciders are cut off; 0: not at all (`closed`). */
  failGraceSeconds: number;
  /** Whether that is the product's, because the feature says nothing of its own. */
  failModeInherited: boolean;
  createdAt: Date;
  /** Raised by every update; its text is the etag. */
  revision: bigint;
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
      created_at: product.createdAt,
      ...changeableProductColumns(product),
    })
    .onConflict((conflict) => conflict.columns(["tenant_id", "product"]).doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
}

function changeableProductColumns(product: Product) {
  return {
    name: product.name,
    grace_days: product.graceDays,
    offline_days: product.offlineDays,
    key_format: product.keyStyle?.format ?? null,
    key_prefix: product.keyStyle?.prefix ?? null,
    ...seatPolicyToRow(product.seatPolicy),
    fail_grace_seconds: product.failGraceSeconds,
    revision: product.revision,
  };
}

/**
 * Stores a product as it now is, in a higher catalogue version; its row is locked. Features that say nothing of their own
 * get its fail mode.
 */
export async function updateProduct(tx: Transaction<DB>, tenant: string, product: Product): Promise<void> {
  await tx
    .updateTable("product")
    .set((eb) => ({ ...changeableProductColumns(product), catalog_version: eb("catalog_version", "+", 1n) }))
    .where("tenant_id", "=", tenant)
    .where("product", "=", product.product)
    .execute();
  await tx
    .updateTable("feature")
    .set({ fail_grace_seconds: product.failGraceSeconds })
    .where("tenant_id", "=", tenant)
    .where("product", "=", product.product)
    .where("fail_mode_inherited", "=", true)
    .where("fail_grace_seconds", "<>", product.failGraceSeconds)
    .execute();
}

/**
 * Whether a product has a license, ended ones included. While its row is locked by {@link lockProduct} it gets none: what
 * names the product waits.
 */
export async function hasLicenses(tx: Transaction<DB>, tenant: string, product: string): Promise<boolean> {
  const row = await tx
    .selectFrom("license")
    .select("license_id")
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .limit(1)
    .executeTakeFirst();
  return row !== undefined;
}

const productColumns = [
  "product",
  "name",
  "grace_days",
  "offline_days",
  "key_format",
  "key_prefix",
  ...seatPolicyColumns,
  "fail_grace_seconds",
  "created_at",
  "revision",
] as const;

function productFromRow(row: Pick<Selectable<ProductTable>, (typeof productColumns)[number]>): Product {
  const { key_format: format, key_prefix: prefix } = row;
  return {
    product: row.product,
    name: row.name,
    graceDays: row.grace_days,
    offlineDays: row.offline_days,
    ...(format !== null && prefix !== null && { keyStyle: { format: format as KeyFormat, prefix } }),
    seatPolicy: seatPolicyFromRow(row),
    failGraceSeconds: row.fail_grace_seconds,
    createdAt: row.created_at,
    revision: row.revision,
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

/**
 * A product, locked against everything that names it, such as a new license.
 *
 * @throws ServiceError NOT_FOUND `PRODUCT_NOT_FOUND`
 */
export async function lockProduct(tx: Transaction<DB>, tenant: string, product: string): Promise<Product> {
  const row = await tx
    .selectFrom("product")
    .select(productColumns)
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .forUpdate()
    .executeTakeFirst();
  if (!row) throw productNotFound(product);
  return productFromRow(row);
}

/** A product, or undefined. */
async function findProduct(tx: Transaction<DB>, tenant: string, product: string): Promise<Product | undefined> {
  const row = await tx
    .selectFrom("product")
    .select(productColumns)
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .modifyEnd(keepPlan)
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
 * Raises a product's catalogue version under its row's lock, which every change of its features, plans and add-ons takes
 * first.
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
      created_at: feature.createdAt,
      ...changeableFeatureColumns(feature),
    })
    .onConflict((conflict) => conflict.columns(["tenant_id", "product", "feature"]).doNothing())
    .executeTakeFirst();
  return result.numInsertedOrUpdatedRows === 1n;
}

function changeableFeatureColumns(feature: Feature) {
  return {
    name: feature.name,
    reduce_only: feature.reduceOnly,
    fail_grace_seconds: feature.failGraceSeconds,
    fail_mode_inherited: feature.failModeInherited,
    revision: feature.revision,
  };
}

/** Stores a feature as it now is; the product's row is locked. */
export async function updateFeature(tx: Transaction<DB>, tenant: string, feature: Feature): Promise<void> {
  await tx
    .updateTable("feature")
    .set(changeableFeatureColumns(feature))
    .where("tenant_id", "=", tenant)
    .where("product", "=", feature.product)
    .where("feature", "=", feature.feature)
    .execute();
}

/**
 * A feature.
 *
 * @throws ServiceError NOT_FOUND `FEATURE_NOT_FOUND`
 */
export async function getFeature(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  feature: string,
): Promise<Feature> {
  const row = await tx
    .selectFrom("feature")
    .select(featureColumns)
    .where("tenant_id", "=", tenant)
    .where("product", "=", product)
    .where("feature", "=", feature)
    .executeTakeFirst();
  if (row) return featureFromRow(row);
  throw failure("FEATURE_NOT_FOUND", `Product ${product} has no feature ${feature}.`, { features: feature });
}

const featureColumns = [
  "product",
  "feature",
  "name",
  "reduce_only",
  "fail_grace_seconds",
  "fail_mode_inherited",
  "created_at",
  "revision",
] as const;

function featureFromRow(row: Pick<Selectable<FeatureTable>, (typeof featureColumns)[number]>): Feature {
  return {
    product: row.product,
    feature: row.feature,
    name: row.name,
    reduceOnly: row.reduce_only,
    failGraceSeconds: row.fail_grace_seconds,
    failModeInherited: row.fail_mode_inherited,
    createdAt: row.created_at,
    revision: row.revision,
  };
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
    .select(featureColumns)
    .where("tenant_id", "=", tenant)
    .$if(product !== "", (query) => query.where("product", "=", product))
    .where(({ eb, refTuple, tuple }) => eb(refTuple("product", "feature"), ">", tuple(after.product, after.feature)))
    .orderBy("product")
    .orderBy("feature")
    .limit(limit)
    .execute();
  return rows.map(featureFromRow);
}

/** Stores a new plan with its first version. Returns false when the product has one of this code. */
export async function insertPlan(tx: Transaction<DB>, tenant: string, plan: Plan): Promise<boolean> {
  const result = await tx
    .insertInto("plan")
    .values({
      tenant_id: tenant,
      product: plan.product,
      plan: plan.plan,
      customer_id: plan.customerId ?? null,
      ...changeablePlanColumns(plan),
    })
    .onConflict((conflict) => conflict.columns(["tenant_id", "product", "plan"]).doNothing())
    .executeTakeFirst();
  if (result.numInsertedOrUpdatedRows !== 1n) return false;
  await insertPlanVersion(tx, tenant, plan);
  return true;
}

function changeablePlanColumns(plan: Plan) {
  return {
    name: plan.name,
    latest_version: plan.latestVersion,
    retired_at: plan.retiredAt ?? null,
    revision: plan.revision,
  };
}

/** Stores what can change of a plan as it now is; the product's row is locked. */
export async function updatePlan(tx: Transaction<DB>, tenant: string, plan: Plan): Promise<void> {
  await tx
    .updateTable("plan")
    .set(changeablePlanColumns(plan))
    .where("tenant_id", "=", tenant)
    .where("product", "=", plan.product)
    .where("plan", "=", plan.plan)
    .execute();
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
      attributes: JSON.stringify(terms.attributes),
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
      "plan.customer_id",
      "plan.retired_at",
      "plan.revision",
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
      "plan_version.attributes",
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
    .modifyEnd(keepPlan)
    .executeTakeFirst();
  if (!row) {
    const which = version === 0 ? "" : ` in version ${version}`;
    throw failure("PLAN_NOT_FOUND", `There is no plan ${plan}${which} of product ${product}.`);
  }
  return planFromRow(row);
}

/** Those plans of a product that exist of the ones asked for, in their latest versions, by code. */
export async function findPlans(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  asked: readonly string[],
): Promise<ReadonlyMap<string, Plan>> {
  if (asked.length === 0) return new Map();
  const rows = await plansWithVersion(tx, tenant)
    .whereRef("plan_version.version", "=", "plan.latest_version")
    .where("plan.product", "=", product)
    .where("plan.plan", "in", asked)
    .execute();
  return new Map(rows.map((row) => [row.plan, planFromRow(row)]));
}

/** Which plans a list shows; empty texts: no matter. */
export interface PlanFilter {
  product: string;
  /** Only plans that this customer can be given. */
  customerId: string;
}

/** Up to `limit` plans in their latest versions by product and code, behind `after`. */
export async function listPlans(
  tx: Transaction<DB>,
  tenant: string,
  { product, customerId }: PlanFilter,
  after: { product: string; plan: string },
  limit: number,
): Promise<Plan[]> {
  const rows = await plansWithVersion(tx, tenant)
    .whereRef("plan_version.version", "=", "plan.latest_version")
    .$if(product !== "", (query) => query.where("plan.product", "=", product))
    .$if(customerId !== "", (query) =>
      query
        .where("plan.retired_at", "is", null)
        .where((eb) => eb.or([eb("plan.customer_id", "is", null), eb("plan.customer_id", "=", customerId)])),
    )
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
