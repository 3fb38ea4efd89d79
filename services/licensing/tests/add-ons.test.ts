import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import {
  type AddOnTermsSchema,
  Cycle,
  KeyFormat,
  LicenseType,
  LimitWindow,
  type PlanTermsSchema,
  ProductCatalogSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { AddOnOrderSchema } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import { type Clients, type Harness, seedTenant, startHarness } from "./harness.ts";

type Orders = MessageInitShape<typeof AddOnOrderSchema>[];
type Terms = MessageInitShape<typeof AddOnTermsSchema>;

let harness: Harness;
let admin: Clients;

const { GAUGE, PER_MONTH } = LimitWindow;
const usd = (amountMinor: bigint) => ({ currency: "USD", amountMinor });
const price = (amountMinor: bigint, currency = "USD") =>
  ({ pricing: { case: "price", value: { currency, amountMinor } }, priceCycle: Cycle.YEAR }) as const;
const agreed = { pricing: { case: "agreed", value: true }, priceCycle: Cycle.YEAR } as const;
const free = { pricing: { case: "free", value: true } } as const;
const terabyte = { metric: "data_volume_tb", window: GAUGE, perUnit: 1n };

/** The plans and the add-on of G2: so much for a terabyte more, by plan. */
beforeAll(async () => {
  harness = await startHarness();
  admin = await seedTenant(harness, "localmind");
  const keys = { keyFormat: KeyFormat.OPAQUE, keyPrefix: "LM" };
  await admin.catalog.createProduct({ requestId: newId(), product: "platform", name: "Platform", ...keys });
  for (const feature of ["basic_analytics", "custom_models"]) {
    await admin.catalog.createFeature({ requestId: newId(), product: "platform", feature, name: feature });
  }
  await newPlan("starter", 1n);
  await newPlan("professional", 3n);
  await newPlan("enterprise", 5n);
  await newPlan("unpriced", 1n);
  await newAddOn("extra-tb", {
    limits: [terabyte],
    offers: [
      { plan: "starter", ...price(500_000n) },
      { plan: "professional", ...price(400_000n) },
      { plan: "enterprise", ...agreed },
    ],
    maxQuantity: 40,
  });
  await newAddOn("models", { features: ["custom_models"], offers: [price(1_000n)] });
  await newAddOn("training", { offers: [free] });
  await newAddOn("team", { seats: 5, offers: [{ plan: "starter", ...price(100n) }] });
});
afterAll(() => harness.stop());

function newPlan(plan: string, terabytes: bigint) {
  const terms: MessageInitShape<typeof PlanTermsSchema> = {
    type: LicenseType.STANDARD,
    features: ["basic_analytics"],
    limits: [
      { metric: "data_volume_tb", window: GAUGE, maximum: terabytes },
      { metric: "api_calls", window: PER_MONTH },
    ],
    ...(plan !== "unpriced" && { price: usd(3_000_000n), priceCycle: Cycle.YEAR }),
    ...(plan !== "enterprise" && { seats: 2 }),
  };
  return admin.catalog.createPlan({ requestId: newId(), product: "platform", plan, name: plan, terms });
}

function newAddOn(addOn: string, terms: Terms, product = "platform") {
  return admin.catalog.createAddOn({ requestId: newId(), product, addOn, name: addOn, terms });
}

let codes = 0;
const newCode = () => `add-on-${++codes}`;

async function provision(plan: string, addOns: Orders = []) {
  const { customer } = await admin.customers.createCustomer({ requestId: newId(), name: "C" });
  const customerId = customer?.customerId as string;
  const request = { requestId: newId(), customerId, product: "platform", plan, addOns };
  const { license } = await admin.licenses.provisionLicense(request);
  if (!license) throw new Error("the reply has no license");
  return license;
}

const set = (licenseId: string, addOns: Orders, etag = "") =>
  admin.licenses.updateLicense({ requestId: newId(), licenseId, etag, updateMask: { paths: ["add_ons"] }, addOns });

const read = async (licenseId: string) => (await admin.licenses.getLicense({ licenseId })).license;

const terabytesOf = (license: Awaited<ReturnType<typeof read>>) =>
  license?.limits.find(({ metric }) => metric === "data_volume_tb")?.maximum;

describe("a license with add-ons", () => {
  test("has what they add from its first moment on, in every answer, event and snapshot", async () => {
    const license = await provision("starter", [
      { addOn: "team", quantity: 2 },
      { addOn: "models", quantity: 1 },
      { addOn: "extra-tb", quantity: 3 },
    ]);
    const expected = {
      features: ["basic_analytics", "custom_models"],
      limits: [{ metric: "data_volume_tb", maximum: 4n }, { metric: "api_calls" }],
      seats: 12,
      addOns: [
        { addOn: "extra-tb", version: 1, quantity: 3, price: usd(500_000n), priceCycle: Cycle.YEAR },
        { addOn: "models", version: 1, quantity: 1, price: usd(1_000n), priceCycle: Cycle.YEAR },
        { addOn: "team", version: 1, quantity: 2, price: usd(100n), priceCycle: Cycle.YEAR },
      ],
    };
    expect(license).toMatchObject(expected);
    expect(await read(license.licenseId)).toMatchObject(expected);
    await harness.licensing.drain();
    const key = `localmind/${license.customerId}`;
    const record = harness.published.findLast((one) => one.topic === "licet.entitlements.v1" && one.key === key);
    expect(fromBinary(EntitlementSnapshotSchema, record?.value ?? new Uint8Array()).licenses).toMatchObject([expected]);
    const { signedLicense } = await admin.licenses.getSignedLicense({ licenseId: license.licenseId });
    expect(JSON.parse(Buffer.from(signedLicense?.payload ?? []).toString()).license).toMatchObject({
      features: expected.features,
      seats: 12,
    });
  });

  test("gets others by UpdateLicense, as a whole and with the history telling it; none when the list is empty", async () => {
    const { licenseId, etag } = await provision("professional");
    const { license } = await set(licenseId, [{ addOn: "extra-tb", quantity: 2 }], etag);
    expect(terabytesOf(license)).toBe(5n);
    expect(license?.etag).toBe("2");
    await expect(set(licenseId, [], etag)).rejects.toMatchObject({ reason: "ETAG_MISMATCH" });
    await set(licenseId, [{ addOn: "training", quantity: 4 }]);
    expect(await read(licenseId)).toMatchObject({ addOns: [{ addOn: "training", quantity: 4 }] });
    expect(terabytesOf(await read(licenseId))).toBe(3n);
    expect((await set(licenseId, [])).license?.addOns).toEqual([]);
    const { entries } = await admin.licenses.listLicenseEvents({ holder: { case: "licenseId", value: licenseId } });
    expect(
      entries.slice(1).map(({ cause, before, after }) => [cause, before?.addOns.length, after?.addOns.length]),
    ).toEqual([
      [LicenseChangeCause.UPDATED, 0, 1],
      [LicenseChangeCause.UPDATED, 1, 1],
      [LicenseChangeCause.UPDATED, 1, 0],
    ]);
  });

  test("keeps them through every other change, and its own seats apart from theirs", async () => {
    const { licenseId } = await provision("starter", [{ addOn: "team", quantity: 1 }]);
    await admin.licenses.updateLicense({ requestId: newId(), licenseId, updateMask: { paths: ["seats"] }, seats: 3 });
    await admin.licenses.suspendLicense({ requestId: newId(), licenseId });
    await admin.licenses.resumeLicense({ requestId: newId(), licenseId });
    expect(await read(licenseId)).toMatchObject({ seats: 8, addOns: [{ addOn: "team" }] });
    const unlimited = { requestId: newId(), licenseId, updateMask: { paths: ["seats"] } };
    await expect(admin.licenses.updateLicense(unlimited)).rejects.toMatchObject({ violations: [{ field: "seats" }] });
    expect((await set(licenseId, [])).license?.seats).toBe(3);
  });

  test("shows them, but no prices of the deal, to the installed product", async () => {
    const license = await provision("professional", [{ addOn: "extra-tb", quantity: 1 }]);
    const { secret } = await admin.keys.issueKey({ requestId: newId(), licenseIds: [license.licenseId] });
    const reply = await harness.installed.checkKey({ key: secret, product: "platform" });
    expect(terabytesOf(reply.license)).toBe(4n);
    expect(reply.license?.addOns).toEqual([]);
  });

  test("what was sold stays as it was sold, whatever becomes of the add-on", async () => {
    const addOn = newCode();
    await newAddOn(addOn, { limits: [terabyte], offers: [price(700n)] });
    const { licenseId } = await provision("starter", [{ addOn, quantity: 1 }]);
    const terms = { limits: [{ ...terabyte, perUnit: 2n }], offers: [price(900n)] };
    const { addOn: published } = await admin.catalog.publishAddOnVersion({
      requestId: newId(),
      product: "platform",
      addOn,
      terms,
      etag: "1",
    });
    expect(published).toMatchObject({ version: 2, latestVersion: 2, etag: "2" });
    expect(await read(licenseId)).toMatchObject({ addOns: [{ version: 1, price: usd(700n) }] });
    // More of it, and the version is the one that is held; a new one by its number.
    const more = await set(licenseId, [{ addOn, quantity: 3 }]);
    expect(more.license).toMatchObject({ addOns: [{ version: 1, quantity: 3, price: usd(700n) }] });
    expect(terabytesOf(more.license)).toBe(4n);
    const moved = await set(licenseId, [{ addOn, quantity: 3, version: 2 }]);
    expect(moved.license).toMatchObject({ addOns: [{ version: 2, price: usd(900n) }] });
    expect(terabytesOf(moved.license)).toBe(7n);
    expect(await provision("starter", [{ addOn, quantity: 1 }])).toMatchObject({ addOns: [{ version: 2 }] });
    const { addOn: first } = await admin.catalog.getAddOn({ product: "platform", addOn, version: 1 });
    expect(first?.terms).toMatchObject({ limits: [terabyte], offers: [price(700n)] });
  });

  test("on another plan they cost what that plan's offer says; on another version of the plan what they did", async () => {
    const { licenseId } = await provision("professional", [{ addOn: "extra-tb", quantity: 1 }]);
    const change = (plan: string, more: object = {}) =>
      admin.licenses.changePlan({ requestId: newId(), licenseId, plan, ...more });
    const starter = await change("starter");
    expect(starter.license).toMatchObject({ addOns: [{ addOn: "extra-tb", price: usd(500_000n) }] });
    expect(terabytesOf(starter.license)).toBe(2n);

    // Enterprise has no price list: it must be agreed, and an agreement outlasts what is no change of plan.
    await expect(change("enterprise")).rejects.toMatchObject({ violations: [{ field: "add_ons.orders[0].price" }] });
    const orders = [{ addOn: "extra-tb", quantity: 2, price: usd(250_000n) }];
    const enterprise = await change("enterprise", { addOns: { orders } });
    expect(enterprise.license).toMatchObject({ addOns: [{ quantity: 2, price: usd(250_000n) }] });
    expect(terabytesOf(enterprise.license)).toBe(7n);
    const more = await set(licenseId, [{ addOn: "extra-tb", quantity: 5 }]);
    expect(more.license).toMatchObject({ addOns: [{ quantity: 5, price: usd(250_000n) }] });
    const same = await change("enterprise", { planVersion: 1 });
    expect(same.license).toMatchObject({ addOns: [{ quantity: 5, price: usd(250_000n) }] });
    expect((await change("professional", { addOns: {} })).license?.addOns).toEqual([]);
  });

  test("a plan in which they have nothing to raise is refused, and so is one they are not for", async () => {
    const { licenseId } = await provision("starter", [{ addOn: "team", quantity: 1 }]);
    const change = (plan: string) => admin.licenses.changePlan({ requestId: newId(), licenseId, plan });
    await expect(change("professional")).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "ADD_ON_NOT_OFFERED",
      metadata: { add_on: "team" },
    });
    const addOn = newCode();
    await newAddOn(addOn, { seats: 1, offers: [free] });
    await set(licenseId, [{ addOn, quantity: 1 }]);
    await expect(change("enterprise")).rejects.toMatchObject({ violations: [{ field: "add_ons.orders[0].add_on" }] });
    expect(await read(licenseId)).toMatchObject({ plan: "starter", seats: 3 });
  });
});

describe("orders that are refused", () => {
  test.each<[string, Orders, string]>([
    ["no units", [{ addOn: "extra-tb", quantity: 0 }], "add_ons[0].quantity"],
    ["a million and one units", [{ addOn: "training", quantity: 1_000_001 }], "add_ons[0].quantity"],
    ["more units than the add-on allows", [{ addOn: "extra-tb", quantity: 41 }], "add_ons[0].quantity"],
    ["an add-on twice", [1, 2].map((quantity) => ({ addOn: "extra-tb", quantity })), "add_ons[1].add_on"],
    ["a price where there is one", [{ addOn: "extra-tb", quantity: 1, price: usd(1n) }], "add_ons[0].price"],
    ["a price for what is free", [{ addOn: "training", quantity: 1, price: usd(1n) }], "add_ons[0].price"],
    ["a negative price", [{ addOn: "extra-tb", quantity: 1, price: usd(-1n) }], "add_ons[0]"],
    ["more than 50", Array.from({ length: 51 }, (_, index) => ({ addOn: `a${index}`, quantity: 1 })), "add_ons"],
  ])("%s", async (_what, addOns, field) => {
    const { licenseId } = await provision("professional");
    const refused = { code: "INVALID_ARGUMENT", violations: [{ field }] };
    await expect(set(licenseId, addOns)).rejects.toMatchObject(refused);
    expect(await read(licenseId)).toMatchObject({ addOns: [], etag: "1" });
  });

  test("an agreed price in another currency, or none", async () => {
    const { licenseId } = await provision("enterprise");
    const order = { addOn: "extra-tb", quantity: 1 };
    await expect(set(licenseId, [order])).rejects.toMatchObject({ violations: [{ field: "add_ons[0].price" }] });
    const euros = set(licenseId, [{ ...order, price: { currency: "EUR", amountMinor: 1n } }]);
    await expect(euros).rejects.toMatchObject({ violations: [{ field: "add_ons[0].price.currency" }] });
  });

  test("an add-on of another product, an unknown one and an unknown version", async () => {
    await newAddOn("desks", { offers: [free] }, "trading");
    const { licenseId } = await provision("professional");
    const refused = { code: "NOT_FOUND", reason: "ADD_ON_NOT_FOUND" };
    for (const order of [{ addOn: "desks" }, { addOn: "none" }, { addOn: "extra-tb", version: 9 }]) {
      await expect(set(licenseId, [{ ...order, quantity: 1 }])).rejects.toMatchObject(refused);
    }
    await expect(set(licenseId, [{ addOn: "desks", quantity: 1 }])).rejects.toThrow(
      "There is no add-on desks of product platform.",
    );
  });

  test("a license without plan", async () => {
    const bare = { customerId: "nile", product: "platform", seats: 1, validUntil: { seconds: 4_000_000_000n } };
    const addOns = [{ addOn: "training", quantity: 1 }];
    const withThem = admin.licenses.provisionLicense({ requestId: newId(), ...bare, addOns });
    await expect(withThem).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    const { license } = await admin.licenses.provisionLicense({ requestId: newId(), ...bare });
    const refused = { reason: "ADD_ON_NOT_OFFERED", metadata: { add_on: "training" } };
    await expect(set(license?.licenseId ?? "", addOns)).rejects.toMatchObject(refused);
  });
});

describe("a retired add-on", () => {
  test("is kept, can be given back and is not sold", async () => {
    const addOn = newCode();
    await newAddOn(addOn, { limits: [terabyte], offers: [free] });
    const { licenseId } = await provision("starter", [{ addOn, quantity: 2 }]);
    const updateMask = { paths: ["retired", "name"] };
    const request = { product: "platform", addOn, updateMask, retired: true, name: "Old" };
    const { addOn: retired } = await admin.catalog.updateAddOn({ requestId: newId(), ...request, etag: "1" });
    expect(retired).toMatchObject({ name: "Old", etag: "2", retiredAt: expect.anything() });
    await expect(admin.catalog.updateAddOn({ requestId: newId(), ...request, etag: "1" })).rejects.toMatchObject({
      reason: "ETAG_MISMATCH",
      metadata: { etag: "2" },
    });
    const refused = { code: "FAILED_PRECONDITION", reason: "ADD_ON_RETIRED", metadata: { add_on: addOn } };
    await expect(set(licenseId, [{ addOn, quantity: 3 }])).rejects.toMatchObject(refused);
    await expect(provision("starter", [{ addOn, quantity: 1 }])).rejects.toMatchObject(refused);
    await set(licenseId, [{ addOn, quantity: 2 }]);
    await admin.licenses.changePlan({ requestId: newId(), licenseId, plan: "professional" });
    expect(terabytesOf((await set(licenseId, [{ addOn, quantity: 1 }])).license)).toBe(4n);
  });
});

describe("terms that are refused", () => {
  const offers = [price(1n)];

  test.each<[string, Terms, string]>([
    ["no offer", { offers: [] }, "terms.offers"],
    [
      "a plan twice",
      { offers: [free, { ...free, plan: "starter" }, { ...free, plan: "starter" }] },
      "terms.offers[2].plan",
    ],
    ["an unknown plan", { offers: [{ ...free, plan: "platinum" }] }, "terms.offers[0].plan"],
    ["a limit twice", { limits: [terabyte, terabyte], offers }, "terms.limits[1]"],
    ["units that add nothing", { limits: [{ ...terabyte, perUnit: 0n }], offers }, "terms.limits[0].per_unit"],
    ["units that take away", { limits: [{ ...terabyte, perUnit: -1n }], offers }, "terms.limits[0].per_unit"],
    [
      "a metric that a named plan leaves unlimited",
      { limits: [{ metric: "api_calls", window: PER_MONTH, perUnit: 1n }], offers: [{ ...free, plan: "starter" }] },
      "terms.limits[0].metric",
    ],
    [
      "seats for a named plan without limit",
      { seats: 1, offers: [free, { ...agreed, plan: "enterprise" }] },
      "terms.seats",
    ],
    [
      "another currency than a named plan's",
      { offers: [{ plan: "starter", ...price(1n, "EUR") }] },
      "terms.offers[0].price.currency",
    ],
    [
      "two currencies",
      { offers: [price(1n), { plan: "unpriced", ...price(1n, "EUR") }] },
      "terms.offers[1].price.currency",
    ],
    ["a negative price", { offers: [price(-1n)] }, "terms.offers[0]"],
    ["a price without cycle", { offers: [{ ...price(1n), priceCycle: 0 }] }, "terms.offers[0]"],
    ["all features", { features: ["*"], offers }, "terms.features[0]"],
    [
      "51 limits",
      { limits: Array.from({ length: 21 }, (_, i) => ({ ...terabyte, metric: `m${i}` })), offers },
      "terms.limits",
    ],
  ])("%s", async (_what, terms, field) => {
    const refused = { code: "INVALID_ARGUMENT", violations: [{ field }] };
    await expect(newAddOn("wrong", terms)).rejects.toMatchObject(refused);
    const { addOns } = await admin.catalog.listAddOns({ product: "platform" });
    expect(addOns.map(({ addOn }) => addOn)).not.toContain("wrong");
  });

  test("an unknown feature, product and a code that is taken", async () => {
    const call = (addOn: string, terms: Terms, product?: string) => newAddOn(addOn, terms, product);
    await expect(call("wrong", { features: ["teleport"], offers })).rejects.toMatchObject({
      reason: "FEATURE_NOT_FOUND",
    });
    await expect(call("wrong", { offers }, "none")).rejects.toMatchObject({ reason: "PRODUCT_NOT_FOUND" });
    await expect(call("training", { offers })).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "ADD_ON_EXISTS",
    });
  });
});

test("add-ons are listed by code in pages, and each change of one publishes the catalogue", async () => {
  const addOn = newCode();
  await newAddOn(addOn, { offers: [free] });
  const version = async () => {
    await harness.licensing.drain();
    const record = harness.published.findLast(({ key }) => key === "localmind/platform");
    return fromBinary(ProductCatalogSchema, record?.value ?? new Uint8Array()).version;
  };
  const before = await version();
  const one = { product: "platform", addOn };
  await admin.catalog.publishAddOnVersion({ requestId: newId(), ...one, terms: { offers: [free] } });
  await admin.catalog.updateAddOn({ requestId: newId(), ...one, updateMask: { paths: ["name"] }, name: "N" });
  expect(await version()).toBe(before + 2n);
  const found: string[] = [];
  let pageToken = "";
  do {
    const page = await admin.catalog.listAddOns({ product: "platform", pageSize: 2, pageToken });
    expect(page.addOns.length).toBeLessThanOrEqual(2);
    found.push(...page.addOns.map((one) => one.addOn));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(found).toEqual([...new Set(found)].sort());
  expect(found).toEqual(expect.arrayContaining(["extra-tb", "models", "team", "training", addOn]));
});

test("orders that come at once, each with the etag that it knows: one is carried out", async () => {
  const { licenseId, etag } = await provision("professional");
  const calls = Array.from({ length: 20 }, (_, index) =>
    set(licenseId, [{ addOn: "extra-tb", quantity: index + 1 }], etag),
  );
  const done = (await Promise.allSettled(calls)).flatMap((one) =>
    one.status === "fulfilled" ? [one.value.license] : [],
  );
  expect(done).toHaveLength(1);
  expect(await read(licenseId)).toEqual({ ...done[0], seatsUsed: 0 });
});
