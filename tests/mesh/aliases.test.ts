/** The first plan's path answers what the RPCs behind it answer, and is served with nobody's rights but its caller's. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import {
  LicensingService as FirstPlan,
  ValidateFeatureRequestSchema as FirstRequestSchema,
  ValidateFeatureResponseSchema as FirstResponseSchema,
} from "@licet/contracts/licensing/licensing_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import {
  ValidateFeatureRequestSchema,
  ValidateFeatureResponseSchema,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { newId } from "@licet/platform/ids";
import { until } from "@licet/platform/testing/until";
import fc from "fast-check";
import { startLicet, type TestLicet } from "./licet.ts";

let licet: TestLicet;
beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet.stop());

const alias = (role = "service", tenant = "tradsys") => createClient(FirstPlan, licet.as(tenant, role));

test("ValidateFeature: what either path sends and answers, the other one's clients can read", async () => {
  const [first, validation] = [alias(), createClient(ValidationService, licet.as("tradsys", "service"))];
  const question = fc.record({
    customerId: fc.constantFrom("cairo-capital", "nile-brokers", "trial-desk", "lapsed-fund", "frozen-desk", "nobody"),
    feature: fc.constantFrom("egx_access", "basic_trading", "advanced_orders", "no_such_feature"),
    context: fc.dictionary(fc.constantFrom("product", "users", "positions"), fc.constantFrom("trading", "1", "51"), {
      maxKeys: 2,
    }),
  });
  const property = fc.asyncProperty(question, async (asked) => {
    const [here, there] = await Promise.allSettled([first.validateFeature(asked), validation.validateFeature(asked)]);
    if (there.status === "rejected") return expect(here).toEqual(there);
    const sent = toBinary(ValidateFeatureResponseSchema, there.value);
    const read = fromBinary(FirstResponseSchema, sent, { readUnknownFields: false });
    expect(here).toEqual({ status: "fulfilled", value: read });
  });
  await fc.assert(property, { numRuns: 60 });
  const request = { customerId: "c", feature: "f", context: { users: "5" } };
  const sent = toBinary(FirstRequestSchema, create(FirstRequestSchema, request));
  expect(fromBinary(ValidateFeatureRequestSchema, sent)).toMatchObject(request);
});

describe("GetLicense", () => {
  test("tells all licenses of a customer as ListLicenses does, and one of them first", async () => {
    const holder = { case: "customerId", value: "cairo-capital" } as const;
    const { licenses } = await createClient(LicensingService, licet.as("tradsys", "viewer")).listLicenses({ holder });
    const told = await alias("viewer").getLicense({ customerId: "cairo-capital" });
    expect(told.licenses).toHaveLength(licenses.length);
    for (const [index, { licenseId, ...license }] of licenses.entries()) {
      const { product, plan, type, status, features, limits, validFrom, validUntil, customerId, metadata } = license;
      const same = { id: licenseId, product, plan, type, status, features, limits, customerId, metadata };
      expect(told.licenses[index]).toMatchObject({ ...same, validFrom, validUntil });
    }
    expect(told.license).toEqual(told.licenses[0]);
    expect(told.license?.limits.length).toBeGreaterThan(0);
  });

  test("puts the one in force before older ones that are not, and without any the newest", async () => {
    const admin = licet.as("tradsys", "admin");
    const licenses = createClient(LicensingService, admin);
    const customerId = `alias-${newId()}`;
    await createClient(CustomerService, admin).createCustomer({ requestId: newId(), customerId, name: "Alias" });
    const provision = async (plan: string) => {
      const made = await licenses.provisionLicense({ requestId: newId(), customerId, product: "trading", plan });
      return made.license?.licenseId ?? "";
    };
    const revoke = (licenseId: string) => licenses.revokeLicense({ requestId: newId(), licenseId, reason: "test" });
    await expect(alias().getLicense({ customerId })).rejects.toMatchObject({
      code: "NOT_FOUND",
      reason: "LICENSE_NOT_FOUND",
    });
    const older = await provision("standard");
    await revoke(older);
    const newer = await provision("enterprise");
    expect((await alias().getLicense({ customerId })).license).toMatchObject({ id: newer, plan: "enterprise" });
    await revoke(newer);
    const { license, licenses: all } = await alias().getLicense({ customerId });
    expect(license).toMatchObject({ id: newer, status: LicenseStatus.REVOKED });
    expect(all.map(({ id }) => id)).toEqual([older, newer]);
  });
});

describe("usage", () => {
  test("an event counts once, by whichever path it comes, and is noted as its sender's", async () => {
    const metering = createClient(UsageMeteringService, licet.as("tradsys", "service"));
    const customerId = `alias-usage-${newId()}`;
    const event = { eventId: newId(), customerId, feature: "egx_access", action: "API_CALL", quantity: 3n };
    const { accepted, acceptedAt } = await alias("product").trackUsage({ ...event, metadata: { venue: "EGX" } });
    expect([accepted, acceptedAt !== undefined]).toEqual([true, true]);
    await alias("product").trackUsage({ ...event, metadata: { venue: "EGX" } });
    await alias("product").trackUsage({ ...event, eventId: newId(), metric: "orders", quantity: 2n });
    const stats = () => alias().getUsageStats({ customerId });
    await until("both are counted", async () => (await stats()).totals.length === 2);
    expect((await stats()).totals).toMatchObject([
      { metric: "egx_access", quantity: "3", events: 1n },
      { metric: "orders", quantity: "2", events: 1n },
    ]);
    expect(await alias().getUsageStats({ customerId, metric: "orders" })).toMatchObject({
      totals: [{ metric: "orders", quantity: "2" }],
    });

    // The same id with other words, by the other path: it is the same event, so it contradicts the first.
    const other = { id: event.eventId, customerId, metric: "egx_access", quantity: "4" };
    await metering.trackUsage({ event: other });
    const contradiction = async () => {
      const { events } = await metering.listQuarantinedEvents({});
      return events.find(({ countedEvent }) => countedEvent?.id === event.eventId);
    };
    await until("the contradiction is noted", async () => (await contradiction()) !== undefined);
    expect((await contradiction())?.countedEvent).toMatchObject({
      feature: "egx_access",
      action: "API_CALL",
      dimensions: { venue: "EGX" },
    });
    await alias("product").trackUsage({ ...event, quantity: 5n });
    const sender = licet.run.apiKeys.tradsys?.product?.split(".")[0];
    await until("the sender of the third is noted", async () => {
      const { events } = await metering.listQuarantinedEvents({});
      return events.some(({ event: sent, actor }) => sent?.quantity === "5" && actor === sender);
    });
  });

  test("what is wrong is named by the field of this request", async () => {
    const event = { eventId: "e", customerId: "cairo-capital", feature: "egx_access", quantity: 1n };
    const fieldOf = async (change: object) => {
      const error = await alias()
        .trackUsage({ ...event, ...change })
        .catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_FIELD" });
      const { violations, message } = error as { violations: { field: string }[]; message: string };
      expect(message).not.toContain("event.");
      return violations.map(({ field }) => field);
    };
    expect(await fieldOf({ timestamp: timestampFromMs(Date.now() + 3_600_000) })).toEqual(["timestamp"]);
    expect(await fieldOf({ quantity: 0n })).toEqual(["quantity"]);
    expect(await fieldOf({ eventId: "" })).toEqual(["event_id"]);
    expect(await fieldOf({ licenseId: "none" })).toEqual(["license_id"]);
    await expect(alias().trackUsage({ ...event, feature: "" })).rejects.toThrow(/feature or metric/);
    const period = { startTime: timestampFromMs(2_000_000_000_000), endTime: timestampFromMs(1_000_000_000_000) };
    await expect(alias().getUsageStats({ customerId: "c", ...period })).rejects.toThrow(/end_time/);
    const long = { startTime: timestampFromMs(0), endTime: timestampFromMs(1_700_000_000_000) };
    await expect(alias().getUsageStats({ customerId: "c", ...long })).rejects.toMatchObject({
      violations: [{ field: "start_time" }],
    });
  });
});
