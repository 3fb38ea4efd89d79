import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { KeyReason } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { KeyFormat, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { PaymentStanding } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import { type Clients, type Harness, startHarness } from "./harness.ts";

const dayMs = 86_400_000;

let harness: Harness;
let brand: Clients;

beforeAll(async () => {
  harness = await startHarness();
  const operator = harness.as("_platform", "operator");
  await operator.tenants.createTenant({ requestId: newId(), tenantId: "nectar", name: "Nectar" });
  brand = harness.as("nectar", "admin");
  for (const [product, keyFormat] of [
    ["desk", KeyFormat.OPAQUE],
    ["workflows", KeyFormat.TOKEN],
  ] as const) {
    const style = { keyFormat, keyPrefix: "NLS", graceDays: 3 };
    await brand.catalog.createProduct({ requestId: newId(), product, name: product, ...style });
    const terms = { type: LicenseType.STANDARD, features: ["*"], termDays: 30 };
    await brand.catalog.createPlan({ requestId: newId(), product, plan: "basic", name: "Basic", terms });
  }
});
afterAll(() => harness.stop());

async function newCustomer(): Promise<string> {
  const { customer } = await brand.customers.createCustomer({ requestId: newId(), name: "C" });
  return customer?.customerId ?? "";
}

/** A license of a new customer with a key of its own. */
async function sell(product: string) {
  const customerId = await newCustomer();
  const key = { case: "issueKey", value: true } as const;
  const wanted = { requestId: newId(), customerId, product, plan: "basic", key };
  const { license, key: issued, keySecret } = await brand.licenses.provisionLicense(wanted);
  return { customerId, licenseId: license?.licenseId ?? "", keyId: issued?.keyId ?? "", secret: keySecret };
}

const check = (key: string) => harness.installed.checkKey({ key, product: "desk" });
const inDays = (days: number) => new Date(harness.clock.now.getTime() + days * dayMs);
const causesOf = async (holder: { case: "customerId" | "licenseId"; value: string }) =>
  (await brand.licenses.listLicenseEvents({ holder })).entries.map(({ cause, keyId }) => [
    LicenseChangeCause[cause],
    keyId,
  ]);

test("a license is transferred when no key in force proves it, and its old keys tell nothing of it any more", async () => {
  const { customerId, licenseId, keyId, secret } = await sell("desk");
  const toCustomerId = await newCustomer();
  const transfer = () => brand.licenses.transferLicense({ requestId: newId(), licenseId, toCustomerId });
  await expect(transfer()).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
    reason: "LICENSE_UNDER_KEY",
    metadata: { key_id: keyId },
  });
  const rotated = await brand.keys.rotateKey({ requestId: newId(), keyId, overlapSeconds: 60 });
  const newKeyId = rotated.key?.keyId ?? "";
  await brand.keys.revokeKey({ requestId: newId(), keyId: newKeyId });
  // The replaced one is still taken, for the overlap.
  await expect(transfer()).rejects.toMatchObject({ reason: "LICENSE_UNDER_KEY", metadata: { key_id: keyId } });
  harness.clock.now = new Date(harness.clock.now.getTime() + 60_000);
  expect((await transfer()).license?.customerId).toBe(toCustomerId);

  for (const [key, reason] of [
    [secret, KeyReason.REPLACED],
    [rotated.secret, KeyReason.REVOKED],
  ] as const) {
    const answer = await check(key);
    expect(answer).toMatchObject({ valid: false, reason });
    expect(answer.license).toBeUndefined();
  }
  const { key, secret: own } = await brand.keys.issueKey({ requestId: newId(), licenseIds: [licenseId] });
  expect(key?.customerId).toBe(toCustomerId);
  expect(await check(own)).toMatchObject({ valid: true, license: { licenseId, customerId: toCustomerId } });
  expect(await causesOf({ case: "customerId", value: customerId })).toEqual([
    ["CUSTOMER_CREATED", ""],
    ["PROVISIONED", ""],
    ["KEY_ISSUED", keyId],
    ["KEY_ISSUED", newKeyId],
    ["KEY_ROTATED", keyId],
    ["KEY_REVOKED", newKeyId],
    ["TRANSFERRED_AWAY", ""],
  ]);
});

test("a key that is issued while its license is transferred is the holder's, or keeps it from going", async () => {
  for (let round = 0; round < 5; round++) {
    const { licenseId, keyId } = await sell("desk");
    await brand.keys.revokeKey({ requestId: newId(), keyId });
    const toCustomerId = await newCustomer();
    const [issued, moved] = await Promise.allSettled([
      brand.keys.issueKey({ requestId: newId(), licenseIds: [licenseId] }),
      brand.licenses.transferLicense({ requestId: newId(), licenseId, toCustomerId }),
    ]);
    if (moved.status === "rejected") expect(moved.reason.reason).toBe("LICENSE_UNDER_KEY");
    if (issued.status === "rejected") expect(issued.reason.reason).toBe("CONFLICT_RETRY");
    else {
      const { license } = await brand.licenses.getLicense({ licenseId });
      expect(issued.value.key?.customerId).toBe(license?.customerId);
    }
  }
});

test("a key follows a cancellation at the end and the grace that billing gave, by the clock alone", async () => {
  const cancelled = await sell("desk");
  await brand.licenses.cancelLicense({ requestId: newId(), licenseId: cancelled.licenseId, atEnd: true });
  const unpaid = await sell("desk");
  const standing = {
    requestId: newId(),
    licenseId: unpaid.licenseId,
    standing: PaymentStanding.GRACE,
    graceUntil: timestampFromDate(inDays(2)),
  };
  await harness.as("nectar", "mesh").licenses.setPaymentStanding(standing);
  const reasons = async () => [(await check(cancelled.secret)).reason, (await check(unpaid.secret)).reason];
  expect(await reasons()).toEqual([KeyReason.PERMITTED, KeyReason.PERMITTED]);
  harness.clock.now = inDays(2);
  expect(await reasons()).toEqual([KeyReason.PERMITTED, KeyReason.LICENSE_SUSPENDED]);
  harness.clock.now = inDays(28);
  // Without grace, though the product has three days of it.
  expect(await reasons()).toEqual([KeyReason.LICENSE_CANCELLED, KeyReason.LICENSE_SUSPENDED]);
});

test("a token key ends where its license does: at a cancellation, or with billing's grace", async () => {
  const claimsOf = async (licenseId: string) => {
    const { secret } = await brand.keys.issueKey({ requestId: newId(), licenseIds: [licenseId] });
    return JSON.parse(Buffer.from(secret.split(".")[1] ?? "", "base64url").toString());
  };
  const { licenseId } = await sell("workflows");
  const end = inDays(30);
  expect((await claimsOf(licenseId)).exp).toBe((end.getTime() + 3 * dayMs) / 1_000);
  await brand.licenses.cancelLicense({ requestId: newId(), licenseId, atEnd: true });
  expect(await claimsOf(licenseId)).toMatchObject({
    exp: end.getTime() / 1_000,
    licenses: [{ ends_at: end.toISOString() }],
  });
  const graceUntil = inDays(2);
  const standing = PaymentStanding.GRACE;
  const unpaid = { requestId: newId(), licenseId, standing, graceUntil: timestampFromDate(graceUntil) };
  await harness.as("nectar", "mesh").licenses.setPaymentStanding(unpaid);
  expect(await claimsOf(licenseId)).toMatchObject({
    exp: graceUntil.getTime() / 1_000,
    licenses: [{ ends_at: graceUntil.toISOString() }],
  });
});
