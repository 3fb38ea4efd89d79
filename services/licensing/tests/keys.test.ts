import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { KeyReason } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { KeyFormat, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseKeyStatus } from "@licet/contracts/licet/licensing/v1/license_key_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { inTenant } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { type Clients, type Harness, startHarness } from "./harness.ts";

let harness: Harness;
let rankmath: Clients;
let wprocket: Clients;
let nectar: Clients;

beforeAll(async () => {
  harness = await startHarness();
  rankmath = await brand("rankmath", "RM", ["pro", "content-ai"]);
  wprocket = await brand("wprocket", "WPR", ["rocket"]);
  nectar = await brand("nectar", "NLS", ["workflows", "insights"], KeyFormat.TOKEN, 30);
});
afterAll(() => harness.stop());

/** A tenant whose products have keys, each with a plan `basic`, and the customer `ada`. */
async function brand(
  tenantId: string,
  keyPrefix: string,
  products: string[],
  keyFormat = KeyFormat.OPAQUE,
  offlineDays = 0,
): Promise<Clients> {
  await harness.as("_platform", "operator").tenants.createTenant({ requestId: newId(), tenantId, name: tenantId });
  const admin = harness.as(tenantId, "admin");
  for (const product of products) {
    const style = { keyFormat, keyPrefix, offlineDays, graceDays: 3 };
    await admin.catalog.createProduct({ requestId: newId(), product, name: product, ...style });
    const terms = {
      type: LicenseType.STANDARD,
      features: ["*"],
      limits: [{ metric: "sites", maximum: 3n, window: 1 }],
    };
    await admin.catalog.createPlan({ requestId: newId(), product, plan: "basic", name: "Basic", terms });
  }
  const ada = { customerId: "ada", name: "Ada", email: "ada@example.com" };
  await admin.customers.createCustomer({ requestId: newId(), ...ada });
  return admin;
}

async function newCustomer(of: Clients): Promise<string> {
  const { customer } = await of.customers.createCustomer({ requestId: newId(), name: "C" });
  return customer?.customerId ?? "";
}

const wanted = (product: string, customerId: string) => ({ requestId: newId(), product, plan: "basic", customerId });

/** A license with a key of its own, of a new customer where none is named. */
async function sell(of: Clients, product: string, customer?: string) {
  const customerId = customer ?? (await newCustomer(of));
  const key = { case: "issueKey", value: true } as const;
  const reply = await of.licenses.provisionLicense({ ...wanted(product, customerId), key });
  if (!reply.license || !reply.key) throw new Error("the reply lacks the license or the key");
  return { customerId, licenseId: reply.license.licenseId, key: reply.key, secret: reply.keySecret, reply };
}

const check = (key: string, product: string) => harness.installed.checkKey({ key, product });
const reasonOf = async (key: string, product: string) => (await check(key, product)).reason;

/** Every row of every table, as text. */
async function everyRow(): Promise<string[]> {
  return harness.database.asSuperuser(async (client) => {
    const tables = await client.query<{ name: string }>(
      "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'",
    );
    const rows: string[] = [];
    for (const { name } of tables.rows) {
      const { rows: found } = await client.query<{ row: string }>(`SELECT t::text AS row FROM "${name}" t`);
      rows.push(...found.map(({ row }) => row));
    }
    return rows;
  });
}

const historyOf = (tenant: string, customerId: string) =>
  inTenant(harness.database.databases, tenant, async (tx) => {
    const events = await tx
      .selectFrom("event")
      .select(["version", "type", "actor", "payload"])
      .where("stream", "=", `customer/${customerId}`)
      .orderBy("id")
      .execute();
    return events.map((event) => ({ ...event, message: fromBinary(LicenseChangedSchema, event.payload) }));
  });

describe("two brands, one e-mail, several products under one key", () => {
  test("one key for two RankMath products, another for WP Rocket, each known to its own brand only", async () => {
    const pro = await sell(rankmath, "pro", "ada");
    expect(pro.secret).toMatch(/^RM(-[0-9A-Z]{4}){4}-[0-9A-Z]$/);
    const second = await rankmath.licenses.provisionLicense({
      ...wanted("content-ai", "ada"),
      key: { case: "keyId", value: pro.key.keyId },
    });
    expect(second.keySecret).toBe("");
    expect(second.key?.licenses.map(({ product }) => product)).toEqual(["content-ai", "pro"]);
    const rocket = await sell(wprocket, "rocket", "ada");
    expect(rocket.secret).toMatch(/^WPR-/);

    const typed = pro.secret.toLowerCase().replaceAll("0", "o");
    for (const [key, product] of [
      [pro.secret, "pro"],
      [typed, "content-ai"],
      [rocket.secret, "rocket"],
    ] as const) {
      expect(await check(key, product)).toMatchObject({
        valid: true,
        reason: KeyReason.PERMITTED,
        license: { product, plan: "basic", status: LicenseStatus.ACTIVE, limits: [{ metric: "sites", maximum: 3n }] },
      });
    }
    expect(await reasonOf(pro.secret, "rocket")).toBe(KeyReason.WRONG_BRAND);
    expect(await reasonOf(rocket.secret, "pro")).toBe(KeyReason.WRONG_BRAND);

    const holder = { case: "email", value: "ADA@example.com" } as const;
    expect((await rankmath.licenses.listLicenses({ holder })).licenses.map(({ product }) => product)).toEqual([
      "pro",
      "content-ai",
    ]);
    expect((await wprocket.licenses.listLicenses({ holder })).licenses.map(({ product }) => product)).toEqual([
      "rocket",
    ]);
    const { keys } = await rankmath.keys.listKeys({ holder: { case: "customerId", value: "ada" } });
    expect(keys).toMatchObject([
      {
        keyId: pro.key.keyId,
        format: KeyFormat.OPAQUE,
        hint: `RM-…-${pro.secret.slice(-6, -2)}`,
        status: LicenseKeyStatus.ACTIVE,
        licenses: [{ product: "content-ai", licenseId: second.license?.licenseId }, { product: "pro" }],
      },
    ]);
  });

  test("a key that proves one of the brand's products does not prove the other", async () => {
    const { secret } = await sell(rankmath, "pro");
    expect(await reasonOf(secret, "content-ai")).toBe(KeyReason.PRODUCT_NOT_INCLUDED);
  });

  test("one license can have several keys, and a key can be issued for several licenses that are there", async () => {
    const { customerId, licenseId, secret } = await sell(rankmath, "pro");
    const { license } = await rankmath.licenses.provisionLicense(wanted("content-ai", customerId));
    const request = { requestId: newId(), licenseIds: [licenseId, license?.licenseId ?? ""] };
    const issued = await rankmath.keys.issueKey(request);
    expect(issued.secret).not.toBe(secret);
    expect((await rankmath.keys.issueKey(request)).secret).toBe(issued.secret);
    for (const key of [secret, issued.secret]) expect(await reasonOf(key, "pro")).toBe(KeyReason.PERMITTED);
    expect(await reasonOf(issued.secret, "content-ai")).toBe(KeyReason.PERMITTED);
    const { keys } = await rankmath.keys.listKeys({ holder: { case: "licenseId", value: licenseId } });
    expect(keys.map(({ keyId }) => keyId).sort()).toEqual([issued.key?.keyId, keys.at(-1)?.keyId].sort());
    await rankmath.keys.revokeKey({ requestId: newId(), keyId: issued.key?.keyId ?? "" });
    expect([await reasonOf(secret, "pro"), await reasonOf(issued.secret, "pro")]).toEqual([
      KeyReason.PERMITTED,
      KeyReason.REVOKED,
    ]);
  });
});

describe("bad input has its own reason", () => {
  test("of the text: malformed, mistyped, unknown", async () => {
    const { secret } = await sell(rankmath, "pro");
    const typo = secret.slice(0, 5) + (secret[5] === "0" ? "7" : "0") + secret.slice(6);
    expect(await reasonOf(secret.slice(0, -2), "pro")).toBe(KeyReason.MALFORMED);
    expect(await reasonOf("hello", "pro")).toBe(KeyReason.MALFORMED);
    expect(await reasonOf(typo, "pro")).toBe(KeyReason.MISTYPED);
    expect(await reasonOf(`WPR${secret.slice(2)}`, "pro")).toBe(KeyReason.MISTYPED);
    // Well formed, with the right check character, and never issued.
    expect(await reasonOf("RM-0000-0000-0000-0000-A", "pro")).toBe(KeyReason.UNKNOWN);
  });

  test("of the key: expired, revoked; a revoked one stays revoked", async () => {
    const { licenseId, secret, key } = await sell(rankmath, "pro");
    const expiresAt = timestampFromDate(new Date(harness.clock.now.getTime() + 60_000));
    const short = await rankmath.keys.issueKey({ requestId: newId(), licenseIds: [licenseId], expiresAt });
    expect(await check(short.secret, "pro")).toMatchObject({ valid: true, keyExpiresAt: expiresAt });
    const first = await rankmath.keys.revokeKey({ requestId: newId(), keyId: key.keyId, reason: "leaked" });
    expect(first.key).toMatchObject({ status: LicenseKeyStatus.REVOKED, revokeReason: "leaked" });
    const again = await rankmath.keys.revokeKey({ requestId: newId(), keyId: key.keyId, reason: "twice" });
    expect(again).toMatchObject({ key: { revokeReason: "leaked", revokedAt: first.key?.revokedAt } });
    expect(again.consistencyToken).toBeUndefined();
    harness.clock.now = new Date(harness.clock.now.getTime() + 60_000);
    expect(await check(short.secret, "pro")).toMatchObject({ valid: false, reason: KeyReason.EXPIRED });
    expect(await reasonOf(secret, "pro")).toBe(KeyReason.REVOKED);
  });

  test("of the license: suspended, revoked", async () => {
    const { licenseId, secret } = await sell(rankmath, "pro");
    await rankmath.licenses.suspendLicense({ requestId: newId(), licenseId, reason: "between us" });
    const suspended = await check(secret, "pro");
    expect(suspended).toMatchObject({ valid: false, reason: KeyReason.LICENSE_SUSPENDED });
    expect(suspended.license?.statusReason).toBe("");
    await rankmath.licenses.revokeLicense({ requestId: newId(), licenseId });
    expect(await reasonOf(secret, "pro")).toBe(KeyReason.LICENSE_REVOKED);
    await expect(rankmath.keys.issueKey({ requestId: newId(), licenseIds: [licenseId] })).rejects.toMatchObject({
      reason: "KEY_CANNOT_HOLD",
    });
  });

  test.each([
    ["a key format without a prefix", { keyFormat: KeyFormat.OPAQUE }],
    ["a prefix without a key format", { keyPrefix: "RM" }],
    ["a prefix of small letters", { keyFormat: KeyFormat.OPAQUE, keyPrefix: "rm" }],
  ])("of a product: %s", async (_what, style) => {
    await expect(
      rankmath.catalog.createProduct({ requestId: newId(), product: "odd", name: "Odd", ...style }),
    ).rejects.toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_FIELD" });
  });

  test("a product without keys issues none, and writes nothing", async () => {
    const product = "free";
    await rankmath.catalog.createProduct({ requestId: newId(), product, name: "Free" });
    await rankmath.catalog.createPlan({
      requestId: newId(),
      product,
      plan: "basic",
      name: "Basic",
      terms: { type: LicenseType.STANDARD, features: ["*"] },
    });
    const customerId = await newCustomer(rankmath);
    const key = { case: "issueKey", value: true } as const;
    await expect(rankmath.licenses.provisionLicense({ ...wanted(product, customerId), key })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "PRODUCT_HAS_NO_KEYS",
    });
    expect(await historyOf("rankmath", customerId)).toHaveLength(1);
  });
});

describe("rotation", () => {
  test("both keys work for the overlap, then only the new one", async () => {
    const { secret, key } = await sell(rankmath, "pro");
    const request = { requestId: newId(), keyId: key.keyId, overlapSeconds: 3_600 };
    const rotated = await rankmath.keys.rotateKey(request);
    expect((await rankmath.keys.rotateKey(request)).secret).toBe(rotated.secret);
    expect(rotated.replaced).toMatchObject({ status: LicenseKeyStatus.ACTIVE, replacedBy: rotated.key?.keyId });
    for (const both of [secret, rotated.secret]) expect(await reasonOf(both, "pro")).toBe(KeyReason.PERMITTED);
    await expect(rankmath.keys.rotateKey({ ...request, requestId: newId() })).rejects.toMatchObject({
      reason: "KEY_NOT_IN_FORCE",
      metadata: { status: "replaced" },
    });
    harness.clock.now = new Date(harness.clock.now.getTime() + 3_600_000);
    expect(await reasonOf(secret, "pro")).toBe(KeyReason.REPLACED);
    expect(await reasonOf(rotated.secret, "pro")).toBe(KeyReason.PERMITTED);
  });

  test("without overlap the old key ends at once, and a rotation never lengthens a key's life", async () => {
    const { licenseId, secret, key } = await sell(rankmath, "pro");
    const rotated = await rankmath.keys.rotateKey({ requestId: newId(), keyId: key.keyId, overlapSeconds: 0 });
    expect(await reasonOf(secret, "pro")).toBe(KeyReason.REPLACED);
    expect(await reasonOf(rotated.secret, "pro")).toBe(KeyReason.PERMITTED);
    const expiresAt = timestampFromDate(new Date(harness.clock.now.getTime() + 60_000));
    const short = await rankmath.keys.issueKey({ requestId: newId(), licenseIds: [licenseId], expiresAt });
    const next = await rankmath.keys.rotateKey({ requestId: newId(), keyId: short.key?.keyId ?? "" });
    expect(next).toMatchObject({ key: { expiresAt }, replaced: { expiresAt } });
  });

  test("of ten rotations at once one wins; at every moment exactly one chain of keys exists", async () => {
    const { customerId, key } = await sell(rankmath, "pro");
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, () => rankmath.keys.rotateKey({ requestId: newId(), keyId: key.keyId })),
    );
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    const { keys } = await rankmath.keys.listKeys({ holder: { case: "customerId", value: customerId } });
    expect(keys).toHaveLength(2);
  });
});

describe("secrets", () => {
  test("are shown once; revealing needs its scope and is written down", async () => {
    const { customerId, secret, key } = await sell(rankmath, "pro");
    const reveal = { requestId: newId(), keyId: key.keyId, reason: "ticket 17" };
    const brandKey = harness.as("rankmath", "brand");
    await expect(brandKey.keys.revealKey(reveal)).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
    expect((await rankmath.keys.revealKey(reveal)).secret).toBe(secret);
    const events = await historyOf("rankmath", customerId);
    expect(events.map(({ type, version }) => [type, version])).toEqual([
      ["licet.customer.created.v1", 1n],
      ["licet.license.provisioned.v1", 2n],
      ["licet.key.issued.v1", 3n],
      ["licet.key.revealed.v1", 4n],
    ]);
    expect(events.at(-1)).toMatchObject({
      actor: "key-of-rankmath",
      message: { cause: LicenseChangeCause.KEY_REVEALED, keyId: key.keyId, reason: "ticket 17" },
    });
  });

  test("every change of a key is one event with a version of its own, published in order", async () => {
    const { customerId, key, reply } = await sell(rankmath, "pro");
    expect(reply.consistencyToken?.version).toBe(3n);
    const rotated = await rankmath.keys.rotateKey({ requestId: newId(), keyId: key.keyId });
    const keyId = rotated.key?.keyId ?? "";
    const revoked = await rankmath.keys.revokeKey({ requestId: newId(), keyId, reason: "gone" });
    expect(revoked.consistencyToken).toMatchObject({ customerId, version: 6n });
    await harness.licensing.drain();
    const heard = harness.published
      .filter((record) => record.topic === "licet.license.v1" && record.key === `rankmath/${customerId}`)
      .map(({ headers, value }) => [headers.ce_type, fromBinary(LicenseChangedSchema, value).keyId]);
    expect(heard).toEqual([
      ["licet.customer.created.v1", ""],
      ["licet.license.provisioned.v1", ""],
      ["licet.key.issued.v1", key.keyId],
      ["licet.key.issued.v1", keyId],
      ["licet.key.rotated.v1", key.keyId],
      ["licet.key.revoked.v1", keyId],
    ]);
  });

  test("are nowhere in the database or on the bus as they are", async () => {
    const { secret } = await sell(rankmath, "pro");
    const token = (await sell(nectar, "workflows")).secret;
    const symbols = secret.replaceAll("-", "").slice(2, 18);
    await harness.licensing.drain();
    const rows = await everyRow();
    for (const text of [secret, symbols, token, token.slice(4, -9)]) {
      expect(rows.filter((row) => row.includes(text) || row.includes(Buffer.from(text).toString("hex")))).toEqual([]);
      expect(harness.published.filter(({ value }) => Buffer.from(value).includes(text))).toEqual([]);
    }
  });
});

test("pages of keys have no gaps and no repetitions", async () => {
  const { customerId, licenseId } = await sell(rankmath, "pro");
  for (let index = 0; index < 4; index++) {
    // Two at the same time: the id decides between them.
    if (index % 2 === 0) harness.clock.now = new Date(harness.clock.now.getTime() + 1_000);
    await rankmath.keys.issueKey({ requestId: newId(), licenseIds: [licenseId] });
  }
  const holder = { case: "customerId", value: customerId } as const;
  const all = (await rankmath.keys.listKeys({ holder })).keys.map(({ keyId }) => keyId);
  const seen: string[] = [];
  let pageToken = "";
  do {
    const page = await rankmath.keys.listKeys({ holder, pageSize: 2, pageToken });
    seen.push(...page.keys.map(({ keyId }) => keyId));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(seen).toEqual(all);
  expect(new Set(seen).size).toBe(5);
});

test("a token key can't take another license; one that names both can be issued", async () => {
  const { customerId, licenseId, key } = await sell(nectar, "workflows");
  const under = { case: "keyId", value: key.keyId } as const;
  const second = wanted("insights", customerId);
  await expect(nectar.licenses.provisionLicense({ ...second, key: under })).rejects.toMatchObject({
    reason: "KEY_CANNOT_HOLD",
  });
  const { license } = await nectar.licenses.provisionLicense(second);
  const both = await nectar.keys.issueKey({ requestId: newId(), licenseIds: [licenseId, license?.licenseId ?? ""] });
  for (const product of ["workflows", "insights"]) {
    expect(await check(both.secret, product)).toMatchObject({ valid: true, offlineDays: 30, license: { product } });
  }
});

test("a token key proves nothing about a license that is not in force when it is rotated", async () => {
  const { licenseId, key } = await sell(nectar, "workflows");
  await nectar.licenses.suspendLicense({ requestId: newId(), licenseId });
  await expect(nectar.keys.rotateKey({ requestId: newId(), keyId: key.keyId })).rejects.toMatchObject({
    reason: "KEY_CANNOT_HOLD",
  });
});

test("another tenant's keys are not found, and the database has no way around that", async () => {
  const { key, licenseId } = await sell(rankmath, "pro");
  const { keyId } = key;
  const notFound = { code: "NOT_FOUND", reason: "KEY_NOT_FOUND" };
  await expect(wprocket.keys.rotateKey({ requestId: newId(), keyId })).rejects.toMatchObject(notFound);
  await expect(wprocket.keys.revokeKey({ requestId: newId(), keyId })).rejects.toMatchObject(notFound);
  await expect(wprocket.keys.revealKey({ requestId: newId(), keyId, reason: "x" })).rejects.toMatchObject(notFound);
  await expect(wprocket.keys.issueKey({ requestId: newId(), licenseIds: [licenseId] })).rejects.toMatchObject({
    reason: "LICENSE_NOT_FOUND",
  });
  await expect(wprocket.licenses.getSignedLicense({ licenseId })).rejects.toMatchObject({
    reason: "LICENSE_NOT_FOUND",
  });
  const taken = { case: "keyId", value: keyId } as const;
  await expect(wprocket.licenses.provisionLicense({ ...wanted("rocket", "ada"), key: taken })).rejects.toMatchObject(
    notFound,
  );
  expect((await wprocket.keys.listKeys({ holder: { case: "licenseId", value: licenseId } })).keys).toEqual([]);
  expect(await isolationBreaches(harness.database)).toEqual([]);
});

test("the times of a key are told", async () => {
  const { key } = await sell(rankmath, "pro");
  expect(timestampDate(key.issuedAt as never)).toEqual(harness.clock.now);
});
