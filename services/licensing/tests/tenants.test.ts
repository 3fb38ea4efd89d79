import { createHash } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { CredentialChangedSchema } from "@licet/contracts/licet/licensing/v1/credential_events_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { generateApiKey, parseApiKey } from "@licet/platform/credentials";
import { asSystem } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { sql } from "kysely";
import { type Harness, seedTenant, startHarness } from "./harness.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.stop());

const operator = () => harness.as("_platform", "operator").tenants;
const mesh = () => harness.as("_platform", "mesh").tenants;

describe("CreateTenant", () => {
  test("gives the first admin key, the same again on repetition, and stores it only sealed", async () => {
    const request = { requestId: newId(), tenantId: "acme", name: "Acme" };
    const first = await operator().createTenant(request);
    expect(first.adminApiKey).toMatchObject({ role: ApiKeyRole.ADMIN, scopes: expect.arrayContaining(["keys:write"]) });
    const parsed = parseApiKey(first.adminApiKeySecret);
    expect(parsed?.keyId).toBe(first.adminApiKey?.keyId);
    expect((await operator().createTenant(request)).adminApiKeySecret).toBe(first.adminApiKeySecret);

    const secret = parsed?.secret as string;
    const { rows } = await asSystem(harness.database.databases, (tx) =>
      sql<{ reply: Buffer }>`SELECT reply FROM idempotency WHERE key = ${request.requestId}`.execute(tx),
    );
    expect(rows).toHaveLength(1);
    expect(rows[0]?.reply.includes(secret)).toBe(false);

    const resolved = await mesh().resolveCredential({ keyId: parsed?.keyId as string });
    expect(resolved.credential?.tenantId).toBe("acme");
    expect(Buffer.from(resolved.credential?.secretHash as Uint8Array)).toEqual(
      createHash("sha256").update(secret).digest(),
    );
  });

  test("refuses an id twice", async () => {
    await operator().createTenant({ requestId: newId(), tenantId: "twice", name: "Twice" });
    await expect(
      operator().createTenant({ requestId: newId(), tenantId: "twice", name: "Twice" }),
    ).rejects.toMatchObject({ code: "ALREADY_EXISTS", reason: "TENANT_EXISTS" });
  });

  test("is for operators", async () => {
    const admin = harness.as("acme", "admin").tenants;
    await expect(admin.createTenant({ requestId: newId(), tenantId: "mine", name: "Mine" })).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "SCOPE_MISSING",
    });
  });

  test("ListTenants pages through all", async () => {
    const { tenants, nextPageToken } = await operator().listTenants({ pageSize: 1 });
    expect(tenants).toHaveLength(1);
    const rest = await operator().listTenants({ pageToken: nextPageToken });
    expect([...tenants, ...rest.tenants].map(({ tenantId }) => tenantId)).toEqual(["acme", "twice"]);
  });
});

describe("API keys", () => {
  test("are created, listed newest first, revoked; every change is heard in order", async () => {
    const { tenants } = await seedTenant(harness, "keys");
    harness.clock.now = new Date(harness.clock.now.getTime() + 1_000);
    const { apiKey, secret } = await tenants.createApiKey({
      requestId: newId(),
      name: "gateway",
      role: ApiKeyRole.SERVICE,
    });
    const keyId = apiKey?.keyId as string;
    expect(parseApiKey(secret)?.keyId).toBe(keyId);
    expect((await tenants.listApiKeys({})).apiKeys.map(({ name }) => name)).toEqual(["gateway", "first admin key"]);

    const revoked = await tenants.revokeApiKey({ requestId: newId(), keyId });
    expect(revoked.apiKey?.revokedAt).toBeDefined();
    const again = await tenants.revokeApiKey({ requestId: newId(), keyId });
    expect(again.apiKey?.revokedAt).toEqual(revoked.apiKey?.revokedAt);

    await harness.licensing.drain();
    const heard = harness.published
      .filter(({ topic, key }) => topic === "licet.credentials.v1" && key === keyId)
      .map(({ value }) => fromBinary(CredentialChangedSchema, value));
    expect(heard.map(({ version, revokedAt }) => [version, revokedAt !== undefined])).toEqual([
      [1n, false],
      [2n, true],
    ]);
    for (const { value } of harness.published) {
      expect(Buffer.from(value).includes(parseApiKey(secret)?.secret as string)).toBe(false);
    }
  });

  test("another tenant's key is not found; operator keys and past expiries are refused", async () => {
    const { tenants } = await seedTenant(harness, "others");
    const mine = (await harness.as("keys", "admin").tenants.listApiKeys({})).apiKeys[0]?.keyId as string;
    await expect(tenants.revokeApiKey({ requestId: newId(), keyId: mine })).rejects.toMatchObject({
      code: "NOT_FOUND",
      reason: "API_KEY_NOT_FOUND",
    });
    const wanted = { requestId: newId(), name: "x" };
    await expect(tenants.createApiKey({ ...wanted, role: ApiKeyRole.OPERATOR })).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "role" })],
    });
    const expiresAt = timestampFromDate(new Date("2020-01-01T00:00:00Z"));
    await expect(tenants.createApiKey({ ...wanted, role: ApiKeyRole.VIEWER, expiresAt })).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "expires_at" })],
    });
  });

  test("the operator's key is stored once, whoever asks how often", async () => {
    const { keyId, secretHash } = generateApiKey();
    await harness.licensing.ensureOperatorKey({ keyId, secretHash });
    await harness.licensing.ensureOperatorKey({ keyId, secretHash });
    const { credential } = await mesh().resolveCredential({ keyId });
    expect(credential).toMatchObject({
      tenantId: "_platform",
      role: ApiKeyRole.OPERATOR,
      scopes: ["platform:admin", "keys:read", "keys:write"],
    });
  });

  test("operators rotate their own keys, and issue none of a tenant's roles", async () => {
    const wanted = { requestId: newId(), name: "next operator", role: ApiKeyRole.OPERATOR };
    const { apiKey } = await operator().createApiKey(wanted);
    const keyId = apiKey?.keyId as string;
    expect((await operator().listApiKeys({})).apiKeys.map((key) => key.keyId)).toContain(keyId);
    expect((await operator().revokeApiKey({ requestId: newId(), keyId })).apiKey?.revokedAt).toBeDefined();
    await expect(
      operator().createApiKey({ requestId: newId(), name: "x", role: ApiKeyRole.ADMIN }),
    ).rejects.toMatchObject({ violations: [expect.objectContaining({ field: "role" })] });
  });
});

describe("catalogue", () => {
  test("codes are unique, and plans name features that exist", async () => {
    const { catalog } = await seedTenant(harness, "catalogs");
    const requestId = newId;
    await expect(
      catalog.createProduct({ requestId: requestId(), product: "trading", name: "T" }),
    ).rejects.toMatchObject({ reason: "PRODUCT_EXISTS" });
    await expect(
      catalog.createFeature({ requestId: requestId(), product: "trading", feature: "egx_access", name: "E" }),
    ).rejects.toMatchObject({ reason: "FEATURE_EXISTS" });
    await expect(
      catalog.createPlan({
        requestId: requestId(),
        product: "trading",
        plan: "p",
        name: "P",
        terms: { type: 2, features: ["egx_access", "teleport"] },
      }),
    ).rejects.toMatchObject({ reason: "FEATURE_NOT_FOUND", metadata: { features: "teleport" } });
    await expect(
      catalog.createPlan({
        requestId: requestId(),
        product: "trading",
        plan: "standard",
        name: "S",
        terms: { type: 2 },
      }),
    ).rejects.toMatchObject({ reason: "PLAN_EXISTS" });
    expect((await catalog.listPlans({})).plans).toMatchObject([{ plan: "standard", version: 1 }]);
    expect((await catalog.listFeatures({ product: "trading" })).features).toHaveLength(2);
    expect((await catalog.listProducts({})).products).toMatchObject([{ product: "trading", graceDays: 3 }]);
  });

  test("a limit of -1 is unlimited, and prices survive to the minor unit", async () => {
    const { catalog } = await seedTenant(harness, "prices");
    await catalog.createPlan({
      requestId: newId(),
      product: "trading",
      plan: "big",
      name: "Big",
      terms: {
        type: 3,
        features: ["*"],
        limits: [{ metric: "users", maximum: -1n, window: 1 }],
        price: { currency: "USD", amountMinor: 9_007_199_254_740_993n },
        priceCycle: 2,
        usagePrices: [
          {
            metric: "exchange_requests",
            includedPerMonth: 500n,
            unitPrice: { currency: "USD", decimal: "0.0125" },
          },
        ],
      },
    });
    const { plan } = await catalog.getPlan({ product: "trading", plan: "big" });
    expect(plan?.terms?.limits[0]).toMatchObject({ metric: "users", enforcement: 1 });
    expect(plan?.terms?.limits[0]?.maximum).toBeUndefined();
    expect(plan?.terms?.price?.amountMinor).toBe(9_007_199_254_740_993n);
    expect(plan?.terms?.usagePrices[0]).toMatchObject({ includedPerMonth: 500n, unitPrice: { decimal: "0.0125" } });
  });
});
