import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import {
  Cycle,
  type FailMode,
  LicenseType,
  ProductCatalogSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { ProvisionLicenseRequestSchema } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { asSystem, inTenant } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { until } from "@licet/platform/testing/until";
import { sql } from "kysely";
import { listCustomers } from "../src/store/customers.ts";
import { listLicenses } from "../src/store/licenses.ts";
import { type Clients, type Harness, seedTenant, startHarness } from "./harness.ts";

let harness: Harness;
let brand: Clients;

beforeAll(async () => {
  harness = await startHarness();
  brand = await seedTenant(harness, "tradsys");
});
afterAll(() => harness.stop());

const wanted = (changes: MessageInitShape<typeof ProvisionLicenseRequestSchema> = {}) => ({
  requestId: newId(),
  customerId: "nile",
  product: "trading",
  plan: "standard",
  ...changes,
});

async function newCustomer(): Promise<string> {
  const { customer } = await brand.customers.createCustomer({ requestId: newId(), name: "C" });
  return customer?.customerId as string;
}

/** A license of its own, as the tests that change one need. */
async function provision(changes: MessageInitShape<typeof ProvisionLicenseRequestSchema> = {}) {
  const { license, consistencyToken } = await brand.licenses.provisionLicense(wanted(changes));
  if (!license || !consistencyToken) throw new Error("the reply has no license");
  return { ...license, version: consistencyToken.version };
}

const countOf = (table: "license" | "event" | "idempotency") =>
  asSystem(harness.database.databases, async (tx) => {
    const row = await tx
      .selectFrom(table)
      .select((eb) => eb.fn.countAll<bigint>().as("count"))
      .executeTakeFirstOrThrow();
    return row.count;
  });

describe("ProvisionLicense", () => {
  test("by plan: the plan's terms, a year, the status now", async () => {
    const license = await provision();
    expect(license).toMatchObject({
      customerId: "nile",
      plan: "standard",
      planVersion: 1,
      type: LicenseType.STANDARD,
      status: LicenseStatus.ACTIVE,
      features: ["basic_trading"],
    });
    expect(timestampDate(license.validUntil as never)).toEqual(new Date("2027-11-22T10:00:00Z"));
    expect((await brand.licenses.getLicense({ licenseId: license.licenseId })).license).toMatchObject({
      licenseId: license.licenseId,
      status: LicenseStatus.ACTIVE,
      limits: [{ metric: "users", maximum: 50n }],
    });
  });

  test("keeps the version that a license was sold on when the plan gets a new one", async () => {
    await brand.catalog.createPlan({
      requestId: newId(),
      product: "trading",
      plan: "growing",
      name: "Growing",
      terms: { type: LicenseType.STANDARD, features: ["basic_trading"] },
    });
    const old = await provision({ plan: "growing" });
    const { plan } = await brand.catalog.publishPlanVersion({
      requestId: newId(),
      product: "trading",
      plan: "growing",
      terms: { type: LicenseType.ENTERPRISE, features: ["*"] },
    });
    expect(plan).toMatchObject({ version: 2, latestVersion: 2 });
    expect(await provision({ plan: "growing" })).toMatchObject({ planVersion: 2, features: ["*"] });
    const { license } = await brand.licenses.getLicense({ licenseId: old.licenseId });
    expect(license).toMatchObject({ planVersion: 1, features: ["basic_trading"] });
  });

  test("bare: own expiry, seats, features; billing and plan stay empty", async () => {
    const validUntil = timestampFromDate(new Date("2027-01-01T00:00:00Z"));
    expect(await provision({ plan: "", validUntil, seats: 3 })).toMatchObject({
      plan: "",
      planVersion: 0,
      type: LicenseType.CUSTOM,
      features: ["*"],
      seats: 3,
      billingCycle: Cycle.UNSPECIFIED,
    });
  });

  test.each([
    ["unknown customer", { customerId: "nobody" }, "NOT_FOUND", "CUSTOMER_NOT_FOUND"],
    ["unknown product", { product: "spaceship" }, "NOT_FOUND", "PRODUCT_NOT_FOUND"],
    ["unknown plan", { plan: "platinum" }, "NOT_FOUND", "PLAN_NOT_FOUND"],
    ["unknown version of a plan", { planVersion: 99 }, "NOT_FOUND", "PLAN_NOT_FOUND"],
    ["bare without expiry", { plan: "", seats: 1 }, "INVALID_ARGUMENT", "INVALID_FIELD"],
    [
      "bare with an unknown feature",
      { plan: "", seats: 1, features: ["teleport"], validUntil: timestampFromDate(new Date("2030-01-01T00:00:00Z")) },
      "NOT_FOUND",
      "FEATURE_NOT_FOUND",
    ],
    [
      "an end before the begin",
      { validUntil: timestampFromDate(new Date("2020-01-01T00:00:00Z")) },
      "INVALID_ARGUMENT",
      "INVALID_FIELD",
    ],
  ])("refuses %s and writes nothing", async (_what, changes, code, reason) => {
    const before = [await countOf("license"), await countOf("event"), await countOf("idempotency")];
    await expect(brand.licenses.provisionLicense(wanted(changes))).rejects.toMatchObject({ code, reason });
    expect([await countOf("license"), await countOf("event"), await countOf("idempotency")]).toEqual(before);
  });

  test("a text with U+0000, which the database can't hold, is the caller's fault and names the field", async () => {
    await expect(provision({ metadata: { note: "a\0b" } })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field: 'metadata["note"]' })],
    });
  });

  test("100 parallel calls with one request_id have one effect and one answer", async () => {
    const request = wanted({ customerId: await newCustomer() });
    const answers = await Promise.all(Array.from({ length: 100 }, () => brand.licenses.provisionLicense(request)));
    expect(new Set(answers.map(({ license }) => license?.licenseId)).size).toBe(1);
    const { licenses } = await brand.licenses.listLicenses({
      holder: { case: "customerId", value: request.customerId },
    });
    expect(licenses).toHaveLength(1);
  });

  test("a request_id with another body is refused", async () => {
    const request = wanted();
    await brand.licenses.provisionLicense(request);
    await expect(brand.licenses.provisionLicense({ ...request, seats: 9 })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "REQUEST_ID_REUSED",
    });
  });
});

describe("status changes", () => {
  test("suspend, resume, revoke; the reason is kept while it holds", async () => {
    const { licenseId } = await provision();
    const suspended = await brand.licenses.suspendLicense({ requestId: newId(), licenseId, reason: "unpaid" });
    expect(suspended.license).toMatchObject({ status: LicenseStatus.SUSPENDED, statusReason: "unpaid" });
    const resumed = await brand.licenses.resumeLicense({ requestId: newId(), licenseId });
    expect(resumed.license).toMatchObject({ status: LicenseStatus.ACTIVE, statusReason: "" });
    const revoked = await brand.licenses.revokeLicense({ requestId: newId(), licenseId, reason: "fraud" });
    expect(revoked.license).toMatchObject({ status: LicenseStatus.REVOKED, statusReason: "fraud" });
    expect(timestampDate(revoked.license?.endedAt as never)).toEqual(harness.clock.now);
    await expect(brand.licenses.resumeLicense({ requestId: newId(), licenseId })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "TRANSITION_NOT_ALLOWED",
      metadata: { from: "revoked", to: "active", allowed: "" },
    });
  });

  test("the clock counts: an expired license can't be suspended", async () => {
    const day = (text: string) => timestampFromDate(new Date(`2026-01-${text}T00:00:00Z`));
    const { licenseId, status } = await provision({ validFrom: day("01"), validUntil: day("02") });
    expect(status).toBe(LicenseStatus.EXPIRED);
    await expect(brand.licenses.suspendLicense({ requestId: newId(), licenseId })).rejects.toMatchObject({
      metadata: { from: "expired", to: "suspended", allowed: "active,cancelled,revoked" },
    });
  });

  test("only what is suspended can be resumed", async () => {
    const day = (text: string) => timestampFromDate(new Date(text));
    const pending = await provision({ validFrom: day("2027-01-01T00:00:00Z") });
    const expired = await provision({
      validFrom: day("2026-01-01T00:00:00Z"),
      validUntil: day("2026-01-02T00:00:00Z"),
    });
    for (const [license, from] of [
      [pending, "pending"],
      [expired, "expired"],
      [await provision(), "active"],
    ] as const) {
      const { licenseId } = license;
      await expect(brand.licenses.resumeLicense({ requestId: newId(), licenseId })).rejects.toMatchObject({
        reason: "TRANSITION_NOT_ALLOWED",
        metadata: { from, to: "active", allowed: expect.not.stringMatching(/\bactive/) },
      });
    }
  });

  test("a customer that can't get one more license can still be stopped", async () => {
    const customerId = await newCustomer();
    const made: string[] = [];
    // Large ones first, then ever smaller ones, so that in the end not even a few hundred bytes are left.
    for (const length of [50, 25, 12, 6, 3, 1, 0]) {
      const notes = Object.fromEntries(Array.from({ length }, (_, index) => [`note-${index}`, "x".repeat(512)]));
      const refused = await (async () => {
        for (let count = 0; count < 300; count++)
          made.push((await provision({ customerId, metadata: notes })).licenseId);
      })().catch((error: unknown) => error);
      expect(refused).toMatchObject({ code: "FAILED_PRECONDITION", reason: "TOO_MANY_LICENSES" });
    }
    const reason = "\u{1F6AB}".repeat(250);
    for (const licenseId of made) await brand.licenses.suspendLicense({ requestId: newId(), licenseId, reason });
    for (const licenseId of made) await brand.licenses.revokeLicense({ requestId: newId(), licenseId, reason });
    await harness.licensing.drain();
    const last = harness.published.findLast(
      ({ topic, key }) => topic === "licet.license.v1" && key === `tradsys/${customerId}`,
    );
    expect(fromBinary(LicenseChangedSchema, last?.value as Uint8Array)).toMatchObject({
      version: BigInt(3 * made.length + 1),
      reason,
    });
  });

  test("concurrent changes of one customer's licenses get versions without gaps, each with its event", async () => {
    const customerId = await newCustomer();
    const licenses = await Promise.all(Array.from({ length: 10 }, () => provision({ customerId })));
    await Promise.all(
      licenses.map(({ licenseId }) => brand.licenses.suspendLicense({ requestId: newId(), licenseId, reason: "x" })),
    );
    const events = await inTenant(harness.database.databases, "tradsys", (tx) =>
      tx
        .selectFrom("event")
        .select(["version", "payload"])
        .where("stream", "=", `customer/${customerId}`)
        .orderBy("id")
        .execute(),
    );
    expect(events.map((event) => event.version)).toEqual(Array.from({ length: 21 }, (_, index) => BigInt(index + 1)));
    for (const { version, payload } of events) {
      const { snapshot } = fromBinary(LicenseChangedSchema, payload);
      expect(snapshot?.version).toBe(version);
      const [provisioned, suspended] = [Math.min(Number(version) - 1, 10), Math.max(Number(version) - 11, 0)];
      expect(snapshot?.licenses).toHaveLength(provisioned);
      expect(snapshot?.licenses.filter(({ status }) => status === LicenseStatus.SUSPENDED)).toHaveLength(suspended);
    }
  });
});

describe("lists", () => {
  test("by e-mail goes by an index, under row-level security too", async () => {
    const { databases } = harness.database;
    const scans = async () => {
      const { rows } = await sql<{ idx_scan: bigint }>`
        SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'customer_email'`.execute(databases.app);
      return rows[0]?.idx_scan ?? 0n;
    };
    const before = await scans();
    const rolledBack = new Error("the many customers are not to stay");
    const looked = inTenant(databases, "tradsys", async (tx) => {
      // In a small table other indexes cost as little, and which one is taken depends on whether it was analyzed meanwhile.
      await sql`
        INSERT INTO customer (tenant_id, customer_id, name, email, industry, domain, employee_count, created_at)
        SELECT 'tradsys', 'many-' || n, 'Many', n || '@example.com', '', '', 0, now() FROM generate_series(1, 5000) AS n
      `.execute(tx);
      await sql`SET LOCAL enable_seqscan = off`.execute(tx);
      await listLicenses(tx, "tradsys", { email: "ada@example.com" }, undefined, 10);
      await listCustomers(tx, "tradsys", "ada@example.com", "", 10);
      await sql`SELECT pg_stat_force_next_flush()`.execute(tx);
      throw rolledBack;
    });
    await expect(looked).rejects.toBe(rolledBack);
    await until("both have been counted", async () => (await scans()) >= before + 2n);
  });

  test("by e-mail without case, oldest first, in pages without gaps or repetitions", async () => {
    const email = "Ada@Example.com";
    const { customer } = await brand.customers.createCustomer({ requestId: newId(), name: "Ada", email });
    const customerId = customer?.customerId as string;
    const made: string[] = [];
    for (let index = 0; index < 5; index++) {
      harness.clock.now = new Date(harness.clock.now.getTime() + 1_000);
      made.push((await provision({ customerId })).licenseId);
    }
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await brand.licenses.listLicenses({
        holder: { case: "email", value: "ada@example.COM" },
        pageSize: 2,
        pageToken,
      });
      seen.push(...page.licenses.map(({ licenseId }) => licenseId));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(seen).toEqual(made);
  });

  test("an unknown holder has no licenses, a foreign page token is refused", async () => {
    const holder = { case: "customerId", value: "nobody" } as const;
    expect((await brand.licenses.listLicenses({ holder })).licenses).toEqual([]);
    await expect(brand.licenses.listLicenses({ holder, pageToken: "x" })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field: "page_token" })],
    });
  });
});

test("a license's id is one, in whatever case it comes", async () => {
  const licenseId = newId();
  expect((await provision({ licenseId: licenseId.toUpperCase() })).licenseId).toBe(licenseId);
  const { license } = await brand.licenses.suspendLicense({ requestId: newId(), licenseId: licenseId.toUpperCase() });
  expect(license?.licenseId).toBe(licenseId);
});

describe("what others hear", () => {
  test("each change as history and as snapshot, in order", async () => {
    const customerId = await newCustomer();
    const { licenseId } = await provision({ customerId });
    await brand.licenses.revokeLicense({ requestId: newId(), licenseId, reason: "gone" });
    await harness.licensing.drain();
    const key = `tradsys/${customerId}`;
    const of = (topic: string) => harness.published.filter((record) => record.topic === topic && record.key === key);
    expect(of("licet.license.v1").map(({ headers }) => headers.ce_type)).toEqual([
      "licet.customer.created.v1",
      "licet.license.provisioned.v1",
      "licet.license.revoked.v1",
    ]);
    const snapshots = of("licet.entitlements.v1").map(({ value }) => fromBinary(EntitlementSnapshotSchema, value));
    expect(snapshots.map(({ version }) => version)).toEqual([1n, 2n, 3n]);
    expect(snapshots[2]?.licenses[0]).toMatchObject({ licenseId, status: LicenseStatus.REVOKED });
  });

  test("the stream of snapshots holds every catalogue and customer of every tenant", async () => {
    await seedTenant(harness, "streamed");
    const catalogs: string[] = [];
    const customers: string[] = [];
    for await (const part of harness.as("_platform", "mesh").licenses.streamEntitlementSnapshots({})) {
      catalogs.push(...part.catalogs.map(({ tenantId, product }) => `${tenantId}/${product}`));
      customers.push(...part.snapshots.map(({ tenantId, customerId }) => `${tenantId}/${customerId}`));
    }
    expect(catalogs).toEqual(expect.arrayContaining(["tradsys/trading", "streamed/trading"]));
    expect(customers).toEqual(expect.arrayContaining(["tradsys/nile", "streamed/nile"]));
    expect(new Set(customers).size).toBe(customers.length);
  });

  test("the stream of one tenant's snapshots holds nothing of another's", async () => {
    await seedTenant(harness, "streamed-alone");
    const told = new Set<string>();
    const { licenses } = harness.as("_platform", "mesh");
    for await (const part of licenses.streamEntitlementSnapshots({ tenantId: "streamed-alone" })) {
      for (const { tenantId, product } of part.catalogs) told.add(`${tenantId}/${product}`);
      for (const { tenantId, customerId } of part.snapshots) told.add(`${tenantId}/${customerId}`);
    }
    expect([...told].sort()).toEqual(["streamed-alone/nile", "streamed-alone/trading"]);
  });
});

test("a feature's fail mode is kept, told, and in the catalogue; 300 s of grace where none is given", async () => {
  const product = "trading";
  const create = (feature: string, mode?: FailMode["mode"]) =>
    brand.catalog.createFeature({
      requestId: newId(),
      product,
      feature,
      name: feature,
      ...(mode && { failMode: { mode } }),
    });
  const closed = { case: "closed", value: true } as const;
  const grace = (value: number) => ({ case: "graceSeconds", value }) as const;
  expect((await create("margin_trading", closed)).feature?.failMode?.mode).toEqual(closed);
  expect((await create("reports", grace(60))).feature?.failMode?.mode).toEqual(grace(60));
  expect((await create("alerts")).feature?.failMode?.mode).toEqual(grace(300));
  for (const wrong of [grace(0), grace(604_801), { case: "closed", value: false } as const, { case: undefined }]) {
    await expect(create("wrong", wrong)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_FIELD" });
  }
  const { features } = await brand.catalog.listFeatures({ product });
  expect(features.find(({ feature }) => feature === "reports")?.failMode?.mode).toEqual(grace(60));
  await harness.licensing.drain();
  const record = harness.published.findLast(
    ({ topic, key }) => topic === "licet.catalog.v1" && key === "tradsys/trading",
  );
  const catalog = fromBinary(ProductCatalogSchema, record?.value ?? new Uint8Array());
  expect(Object.fromEntries(catalog.features.map(({ feature, failMode }) => [feature, failMode?.mode]))).toMatchObject({
    margin_trading: closed,
    reports: grace(60),
    alerts: grace(300),
    egx_access: grace(300),
  });
});

test("the database's time is told to other services only", async () => {
  const { databaseTime } = await harness.as("_platform", "mesh").licenses.getDatabaseTime({});
  expect(Math.abs(Number(databaseTime?.seconds) * 1_000 - Date.now())).toBeLessThan(60_000);
  await expect(brand.licenses.getDatabaseTime({})).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
});

test("no way around the tenant in the database", async () => {
  expect(await isolationBreaches(harness.database)).toEqual([]);
});

test("another tenant's ids are not found, and its lists are empty", async () => {
  const { licenseId } = await provision();
  const other = await seedTenant(harness, "other");
  const request = { requestId: newId(), licenseId };
  const notFound = { code: "NOT_FOUND", reason: "LICENSE_NOT_FOUND" };
  await expect(other.licenses.getLicense({ licenseId })).rejects.toMatchObject(notFound);
  await expect(other.licenses.suspendLicense(request)).rejects.toMatchObject(notFound);
  await expect(other.licenses.resumeLicense(request)).rejects.toMatchObject(notFound);
  await expect(other.licenses.revokeLicense(request)).rejects.toMatchObject(notFound);
  const { licenses } = await other.licenses.listLicenses({ holder: { case: "customerId", value: "nile" } });
  expect(licenses).toEqual([]);
});
