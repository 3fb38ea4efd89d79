import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import {
  type FailMode,
  KeyFormat,
  LicenseType,
  type PlanTermsSchema,
  ProductCatalogSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { UpdateProductRequestSchema } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { inTenant } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { until } from "@licet/platform/testing/until";
import { sql } from "kysely";
import { type Clients, type Harness, seedTenant, startHarness } from "./harness.ts";

let harness: Harness;
let admin: Clients;

beforeAll(async () => {
  harness = await startHarness();
  admin = await seedTenant(harness, "tradsys");
});
afterAll(() => harness.stop());

const closed: FailMode["mode"] = { case: "closed", value: true };
const grace = (value: number): FailMode["mode"] => ({ case: "graceSeconds", value });
const standard = (changes: MessageInitShape<typeof PlanTermsSchema> = {}) => ({
  type: LicenseType.STANDARD,
  features: ["basic_trading"],
  ...changes,
});

let counter = 0;

/** A product of its own with one feature `report`, as the tests that change one need. */
async function newProduct(
  keys: { keyFormat?: KeyFormat; keyPrefix?: string; failMode?: { mode: FailMode["mode"] } } = {},
) {
  counter += 1;
  const product = `product-${counter}`;
  await admin.catalog.createProduct({ requestId: newId(), product, name: product, ...keys });
  await admin.catalog.createFeature({ requestId: newId(), product, feature: "report", name: "Report" });
  return product;
}

async function newPlan(product: string, plan: string, customerId = "", terms = standard({ features: ["*"] })) {
  await admin.catalog.createPlan({ requestId: newId(), product, plan, name: plan, customerId, terms });
}

async function newCustomer(): Promise<string> {
  const { customer } = await admin.customers.createCustomer({ requestId: newId(), name: "C" });
  return customer?.customerId as string;
}

async function provision(product: string, plan: string, customerId = "nile") {
  const { license } = await admin.licenses.provisionLicense({ requestId: newId(), customerId, product, plan });
  if (!license) throw new Error("the reply has no license");
  return license;
}

type Changes = Omit<MessageInitShape<typeof UpdateProductRequestSchema>, "$typeName" | "updateMask">;

const update = (product: string, paths: string[], changes: Changes = {}) =>
  admin.catalog.updateProduct({ requestId: newId(), product, updateMask: { paths }, ...changes });

/** The last catalogue of a product that was published. */
async function publishedCatalog(product: string) {
  await harness.licensing.drain();
  const record = harness.published.findLast(
    ({ topic, key }) => topic === "licet.catalog.v1" && key === `tradsys/${product}`,
  );
  return fromBinary(ProductCatalogSchema, record?.value ?? new Uint8Array());
}

describe("UpdateProduct", () => {
  test("changes what the mask names and nothing else, and publishes the catalogue in a higher version", async () => {
    const product = await newProduct();
    const before = await publishedCatalog(product);
    const { product: after } = await update(product, ["name", "offline_days"], {
      name: "New",
      offlineDays: 30,
      graceDays: 9,
    });
    expect(after).toMatchObject({ name: "New", offlineDays: 30, graceDays: 0, etag: "2" });
    expect((await admin.catalog.getProduct({ product })).product).toEqual(after);
    const { name, version } = await publishedCatalog(product);
    expect({ name, version }).toEqual({ name: "New", version: before.version + 1n });
  });

  test("an etag that is no longer current is refused with the current one, and nothing changes", async () => {
    const product = await newProduct();
    await update(product, ["grace_days"], { etag: "1", graceDays: 3 });
    await expect(update(product, ["name"], { etag: "1", name: "Lost" })).rejects.toMatchObject({
      code: "ABORTED",
      reason: "ETAG_MISMATCH",
      metadata: { etag: "2" },
    });
    expect((await admin.catalog.getProduct({ product })).product).toMatchObject({ name: product, graceDays: 3 });
  });

  test("of many callers with one etag, one has its way", async () => {
    const product = await newProduct();
    const names = Array.from({ length: 20 }, (_, index) => `Name ${index}`);
    const calls = await Promise.allSettled(names.map((name) => update(product, ["name"], { etag: "1", name })));
    expect(calls.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect((await admin.catalog.getProduct({ product })).product?.etag).toBe("2");
  });

  test("the fail mode of a product is that of its features which say nothing of their own, now and later", async () => {
    const product = await newProduct({ failMode: { mode: grace(60) } });
    await admin.catalog.createFeature({
      requestId: newId(),
      product,
      feature: "own",
      name: "Own",
      failMode: { mode: grace(5) },
    });
    const modes = async () =>
      Object.fromEntries((await publishedCatalog(product)).features.map((one) => [one.feature, one.failMode?.mode]));
    expect(await modes()).toEqual({ own: grace(5), report: grace(60) });
    await update(product, ["fail_mode"], { failMode: { mode: closed } });
    expect(await modes()).toEqual({ own: grace(5), report: closed });
    const { feature } = await admin.catalog.updateFeature({
      requestId: newId(),
      product,
      feature: "own",
      updateMask: { paths: ["fail_mode"] },
    });
    expect(feature).toMatchObject({ failMode: { mode: closed }, failModeInherited: true, etag: "2" });
    await update(product, ["fail_mode"]);
    expect(await modes()).toEqual({ own: grace(300), report: grace(300) });
  });

  test("how keys look is free until a license is sold, then fixed; who has none can get them at any time", async () => {
    const product = await newProduct();
    await newPlan(product, "pro");
    const keys = (keyFormat: KeyFormat, keyPrefix: string) =>
      update(product, ["key_format", "key_prefix"], { keyFormat, keyPrefix });
    await keys(KeyFormat.OPAQUE, "AB");
    await keys(KeyFormat.TOKEN, "CD");
    await keys(KeyFormat.UNSPECIFIED, "");
    await provision(product, "pro");
    await keys(KeyFormat.OPAQUE, "RM");
    const fixed = {
      code: "FAILED_PRECONDITION",
      reason: "KEY_STYLE_IN_USE",
      metadata: { key_format: "opaque", key_prefix: "RM" },
    };
    await expect(keys(KeyFormat.TOKEN, "RM")).rejects.toMatchObject(fixed);
    await expect(keys(KeyFormat.UNSPECIFIED, "")).rejects.toMatchObject(fixed);
    await expect(update(product, ["key_prefix"], { keyPrefix: "XY" })).rejects.toMatchObject(fixed);
    const { product: after } = await keys(KeyFormat.OPAQUE, "RM");
    expect(after).toMatchObject({ keyFormat: KeyFormat.OPAQUE, keyPrefix: "RM" });
  });

  test("a change of the prefix waits for a license that is being sold, and is refused then", async () => {
    const product = await newProduct({ keyFormat: KeyFormat.OPAQUE, keyPrefix: "OLD" });
    const { databases } = harness.database;
    const waiting = () =>
      inTenant(databases, "tradsys", (tx) =>
        sql<{
          pid: number;
        }>`SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
          .execute(tx)
          .then(({ rows }) => rows.length > 0),
      );
    let change: Promise<unknown> = Promise.resolve();
    await inTenant(databases, "tradsys", async (tx) => {
      await sql`INSERT INTO license (tenant_id, license_id, customer_id, product, type, status, features, limits, valid_from,
          grace_days, metadata, created_at, updated_at)
        VALUES ('tradsys', ${newId()}, 'nile', ${product}, 'custom', 'active', '{}', '[]', now(), 0, '{}', now(), now())`.execute(
        tx,
      );
      change = update(product, ["key_prefix"], { keyPrefix: "NEW" });
      change.catch(() => undefined);
      await until("the change waits", waiting);
    });
    await expect(change).rejects.toMatchObject({ reason: "KEY_STYLE_IN_USE" });
    expect((await admin.catalog.getProduct({ product })).product?.keyPrefix).toBe("OLD");
  });

  test.each([
    [
      "an unknown product",
      { product: "spaceship", updateMask: { paths: ["name"] }, name: "N" },
      "PRODUCT_NOT_FOUND",
      /spaceship/,
    ],
    [
      "no mask",
      { product: "trading", updateMask: { paths: [] } },
      "INVALID_FIELD",
      /^update_mask: must name at least one/,
    ],
    [
      "an unknown path",
      { product: "trading", updateMask: { paths: ["product"] } },
      "INVALID_FIELD",
      /names "product"; it can/,
    ],
    ["an empty name", { product: "trading", updateMask: { paths: ["name"] } }, "INVALID_FIELD", /^name: /],
    [
      "a format without prefix",
      { product: "trading", updateMask: { paths: ["key_format"] }, keyFormat: 1 },
      "INVALID_FIELD",
      /^key_prefix: /,
    ],
    [
      "a prefix without format",
      { product: "trading", updateMask: { paths: ["key_prefix"] }, keyPrefix: "AB" },
      "INVALID_FIELD",
      /^key_prefix: /,
    ],
    [
      "a prefix in small letters",
      { product: "trading", updateMask: { paths: ["key_prefix"] }, keyPrefix: "ab" },
      "INVALID_FIELD",
      /key_prefix/,
    ],
    [
      "a year of grace and a day",
      { product: "trading", updateMask: { paths: ["grace_days"] }, graceDays: 366 },
      "INVALID_FIELD",
      /grace_days/,
    ],
  ])("%s is refused", async (_what, request, reason, message) => {
    const call = admin.catalog.updateProduct({ requestId: newId(), ...request });
    await expect(call).rejects.toMatchObject({ reason, message: expect.stringMatching(message) });
  });
});

describe("UpdateFeature", () => {
  test("deciders hear of the change, and the name stays", async () => {
    const product = await newProduct();
    const request = {
      product,
      feature: "report",
      updateMask: { paths: ["reduce_only", "fail_mode"] },
      reduceOnly: true,
    };
    const reply = await admin.catalog.updateFeature({ requestId: newId(), ...request, failMode: { mode: closed } });
    expect(reply.feature).toMatchObject({
      name: "Report",
      reduceOnly: true,
      failMode: { mode: closed },
      failModeInherited: false,
    });
    expect((await publishedCatalog(product)).features).toMatchObject([
      { feature: "report", reduceOnly: true, failMode: { mode: closed } },
    ]);
    const { features } = await admin.catalog.listFeatures({ product });
    expect(features).toEqual([reply.feature]);
  });

  test("refusals name what is wrong", async () => {
    const named = { product: "trading", updateMask: { paths: ["name"] }, name: "N" };
    const call = (changes: object) => admin.catalog.updateFeature({ requestId: newId(), ...named, ...changes });
    await expect(call({ feature: "teleport" })).rejects.toMatchObject({
      code: "NOT_FOUND",
      reason: "FEATURE_NOT_FOUND",
    });
    await expect(call({ feature: "egx_access", product: "none" })).rejects.toMatchObject({
      reason: "PRODUCT_NOT_FOUND",
    });
    await expect(call({ feature: "egx_access", etag: "7" })).rejects.toMatchObject({
      reason: "ETAG_MISMATCH",
      metadata: { etag: "1" },
    });
  });
});

describe("UpdatePlan", () => {
  test("a retired plan is given to nobody, is kept by who has it, and can come back", async () => {
    const product = await newProduct();
    await newPlan(product, "old");
    await newPlan(product, "new");
    const held = await provision(product, "old");
    const other = await provision(product, "new");
    const retire = (retired: boolean) =>
      admin.catalog.updatePlan({
        requestId: newId(),
        product,
        plan: "old",
        updateMask: { paths: ["retired"] },
        retired,
      });
    const { plan } = await retire(true);
    expect(plan).toMatchObject({ name: "old", etag: "2", retiredAt: expect.anything() });
    const refused = { code: "FAILED_PRECONDITION", reason: "PLAN_RETIRED" };
    await expect(provision(product, "old")).rejects.toMatchObject(refused);
    const change = (licenseId: string) => admin.licenses.changePlan({ requestId: newId(), licenseId, plan: "old" });
    await expect(change(other.licenseId)).rejects.toMatchObject(refused);

    await admin.catalog.publishPlanVersion({
      requestId: newId(),
      product,
      plan: "old",
      terms: standard({ features: [] }),
    });
    expect((await change(held.licenseId)).license).toMatchObject({ plan: "old", planVersion: 2 });
    const renewed = await admin.licenses.renewLicense({
      requestId: newId(),
      licenseId: held.licenseId,
      end: { case: "termFrom", value: 1 },
    });
    expect(renewed.license?.plan).toBe("old");

    expect((await retire(false)).plan?.retiredAt).toBeUndefined();
    expect(await provision(product, "old")).toMatchObject({ planVersion: 2 });
  });

  test("publishing a version leaves licenses on theirs, and ChangePlan moves one", async () => {
    const product = await newProduct();
    const limit = (maximum: bigint) => [{ metric: "users", maximum, window: 1 }];
    await newPlan(
      product,
      "pro",
      "",
      standard({ features: ["*"], limits: limit(5n), seats: 2, attributes: { support: "e-mail" } }),
    );
    const [stays, moves] = [await provision(product, "pro"), await provision(product, "pro")];
    const terms = standard({ features: ["report"], limits: limit(9n), seats: 4, attributes: { support: "priority" } });
    const published = await admin.catalog.publishPlanVersion({
      requestId: newId(),
      product,
      plan: "pro",
      terms,
      etag: "1",
    });
    expect(published.plan).toMatchObject({ version: 2, latestVersion: 2, etag: "2" });
    const first = {
      planVersion: 1,
      features: ["*"],
      limits: [{ maximum: 5n }],
      seats: 2,
      attributes: { support: "e-mail" },
    };
    const second = {
      planVersion: 2,
      features: ["report"],
      limits: [{ maximum: 9n }],
      seats: 4,
      attributes: { support: "priority" },
    };
    const now = async (licenseId: string) => (await admin.licenses.getLicense({ licenseId })).license;
    expect(await now(stays.licenseId)).toMatchObject(first);
    await admin.licenses.changePlan({ requestId: newId(), licenseId: moves.licenseId, plan: "pro" });
    expect(await now(moves.licenseId)).toMatchObject(second);
    expect(await now(stays.licenseId)).toMatchObject({ ...first, etag: stays.etag });
    await admin.licenses.changePlan({ requestId: newId(), licenseId: moves.licenseId, plan: "pro", planVersion: 1 });
    expect(await now(moves.licenseId)).toMatchObject(first);
    const stale = admin.catalog.publishPlanVersion({ requestId: newId(), product, plan: "pro", terms, etag: "1" });
    await expect(stale).rejects.toMatchObject({ reason: "ETAG_MISMATCH", metadata: { etag: "2" } });
  });

  test("versions that are published at once are numbered without gaps", async () => {
    const product = await newProduct();
    await newPlan(product, "pro");
    const publish = (seats: number) =>
      admin.catalog.publishPlanVersion({
        requestId: newId(),
        product,
        plan: "pro",
        terms: standard({ features: [], seats }),
      });
    const replies = await Promise.all(Array.from({ length: 12 }, (_, index) => publish(index)));
    expect(replies.map(({ plan }) => plan?.version).sort((a, b) => Number(a) - Number(b))).toEqual(
      Array.from({ length: 12 }, (_, index) => index + 2),
    );
    for (const { plan } of replies) {
      const again = await admin.catalog.getPlan({ product, plan: "pro", version: plan?.version ?? 0 });
      expect(again.plan?.terms).toEqual(plan?.terms);
    }
  });
});

describe("a plan for one customer", () => {
  test("can be given to nobody else, by no way", async () => {
    const product = await newProduct();
    const [owner, other] = [await newCustomer(), await newCustomer()];
    await newPlan(product, "deal", owner);
    await newPlan(product, "pro");
    const held = await provision(product, "deal", owner);
    expect(held).toMatchObject({ plan: "deal", customerId: owner });
    const refused = { code: "FAILED_PRECONDITION", reason: "PLAN_FOR_OTHER_CUSTOMER" };
    await expect(provision(product, "deal", other)).rejects.toMatchObject(refused);
    const { licenseId } = await provision(product, "pro", other);
    const change = admin.licenses.changePlan({ requestId: newId(), licenseId, plan: "deal" });
    await expect(change).rejects.toMatchObject(refused);
    const give = admin.licenses.transferLicense({ requestId: newId(), licenseId: held.licenseId, toCustomerId: other });
    await expect(give).rejects.toMatchObject(refused);
    const mine = await admin.licenses.changePlan({
      requestId: newId(),
      licenseId: (await provision(product, "pro", owner)).licenseId,
      plan: "deal",
    });
    expect(mine.license?.plan).toBe("deal");
  });

  test("is listed with its customer or without one, not with another", async () => {
    const product = await newProduct();
    const [owner, other] = [await newCustomer(), await newCustomer()];
    await newPlan(product, "deal", owner);
    await newPlan(product, "gone");
    await newPlan(product, "pro");
    await admin.catalog.updatePlan({
      requestId: newId(),
      product,
      plan: "gone",
      updateMask: { paths: ["retired"] },
      retired: true,
    });
    const listed = async (customerId: string) =>
      (await admin.catalog.listPlans({ product, customerId })).plans.map((plan) => [plan.plan, plan.customerId]);
    expect(await listed("")).toEqual([
      ["deal", owner],
      ["gone", ""],
      ["pro", ""],
    ]);
    expect(await listed(owner)).toEqual([
      ["deal", owner],
      ["pro", ""],
    ]);
    expect(await listed(other)).toEqual([["pro", ""]]);
  });

  test("needs its customer to exist", async () => {
    await expect(newPlan("trading", "deal", "nobody")).rejects.toMatchObject({
      code: "NOT_FOUND",
      reason: "CUSTOMER_NOT_FOUND",
    });
    await expect(admin.catalog.getPlan({ product: "trading", plan: "deal" })).rejects.toMatchObject({
      reason: "PLAN_NOT_FOUND",
    });
  });
});

describe("attributes of a plan", () => {
  test("are shown on the license, in the snapshot and in the signed license", async () => {
    const product = await newProduct();
    const customerId = await newCustomer();
    const attributes = { support: "premium", sla: "99.9 %", model_size: "large" };
    await newPlan(product, "pro", "", standard({ features: ["*"], attributes }));
    const { licenseId, attributes: shown } = await provision(product, "pro", customerId);
    expect(shown).toEqual(attributes);
    await harness.licensing.drain();
    const record = harness.published.findLast(
      ({ topic, key }) => topic === "licet.entitlements.v1" && key === `tradsys/${customerId}`,
    );
    expect(fromBinary(EntitlementSnapshotSchema, record?.value ?? new Uint8Array()).licenses[0]?.attributes).toEqual(
      attributes,
    );
    const { signedLicense } = await admin.licenses.getSignedLicense({ licenseId });
    expect(JSON.parse(Buffer.from(signedLicense?.payload ?? []).toString()).license).toMatchObject({ attributes });
    const bare = { requestId: newId(), customerId, product, seats: 1, validUntil: { seconds: 4_000_000_000n } };
    expect((await admin.licenses.provisionLicense(bare)).license?.attributes).toEqual({});
  });

  test.each([
    [
      "more than 50",
      Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`a${index}`, "x"])),
      "terms.attributes",
    ],
    ["a long text", { support: "x".repeat(201) }, 'terms.attributes["support"]'],
    ["an empty text", { support: "" }, 'terms.attributes["support"]'],
    ["a name that is no code", { "Model size": "large" }, 'terms.attributes["Model size"]'],
  ])("%s are refused by their name", async (_what, attributes, field) => {
    const refused = newPlan("trading", "wordy", "", standard({ attributes }));
    await expect(refused).rejects.toMatchObject({ code: "INVALID_ARGUMENT", violations: [{ field }] });
  });
});

test("no way around the tenant in the database", async () => {
  expect(await isolationBreaches(harness.database)).toEqual([]);
});
