import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { DecisionReason, ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { newId } from "@licet/platform/ids";
import { createChannel } from "@licet/platform/rpc/client";
import { patient } from "@licet/platform/testing/patient";
import { until } from "@licet/platform/testing/until";
import { startLicet, type TestLicet } from "./licet.ts";

let licet: TestLicet;
beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet.stop());

const service = () => licet.as("tradsys", "service");
const reasonOf = async (customerId: string, feature: string) => {
  const decision = await createClient(ValidationService, service()).validateFeature({ customerId, feature });
  return DecisionReason[decision.reason];
};

test("provision → validate → suspend → resume → revoke: each is seen by the next decisions", async () => {
  const licenses = createClient(LicensingService, licet.as("tradsys", "brand"));
  const customers = createClient(CustomerService, licet.as("tradsys", "brand"));
  const customerId = `main-job-${newId()}`;
  expect(await reasonOf(customerId, "egx_access")).toBe("NO_LICENSE");
  await customers.createCustomer({ requestId: newId(), customerId, name: "Main Job" });
  const { license } = await licenses.provisionLicense({
    requestId: newId(),
    customerId,
    product: "trading",
    plan: "enterprise",
  });
  const licenseId = license?.licenseId ?? "";
  const becomes = (reason: string) =>
    until(`the decision is ${reason}`, async () => (await reasonOf(customerId, "egx_access")) === reason);
  await becomes("ALLOWED");
  await licenses.suspendLicense({ requestId: newId(), licenseId, reason: "test" });
  await becomes("LICENSE_SUSPENDED");
  await licenses.resumeLicense({ requestId: newId(), licenseId });
  await becomes("ALLOWED");
  await licenses.revokeLicense({ requestId: newId(), licenseId, reason: "test" });
  await becomes("LICENSE_REVOKED");
});

test("a cancellation at the end and a transfer are seen by decisions; the history says from where they came", async () => {
  const licenses = createClient(LicensingService, licet.as("tradsys", "brand"));
  const customers = createClient(CustomerService, licet.as("tradsys", "brand"));
  const [seller, buyer] = [`seller-${newId()}`, `buyer-${newId()}`];
  for (const customerId of [seller, buyer])
    await customers.createCustomer({ requestId: newId(), customerId, name: "M" });
  // Time enough for three calls on a busy machine.
  const validUntil = timestampFromDate(new Date(Date.now() + 30_000));
  const wanted = { requestId: newId(), customerId: seller, product: "trading", plan: "enterprise", validUntil };
  const licenseId = (await licenses.provisionLicense(wanted)).license?.licenseId ?? "";
  await licenses.cancelLicense({ requestId: newId(), licenseId, atEnd: true, reason: "sold" });
  await licenses.transferLicense({ requestId: newId(), licenseId, toCustomerId: buyer });
  await until("the seller has none", async () => (await reasonOf(seller, "egx_access")) === "NO_LICENSE");
  await until("the buyer's has ended", async () => (await reasonOf(buyer, "egx_access")) === "LICENSE_CANCELLED");
  const cancelled = async () => {
    const { entries } = await licenses.listLicenseEvents({ holder: { case: "licenseId", value: licenseId } });
    return entries;
  };
  await until("the scheduler has told it", async () => (await cancelled()).length === 5);
  expect((await cancelled()).map(({ cause, reason }) => [LicenseChangeCause[cause], reason])).toEqual([
    ["PROVISIONED", ""],
    ["CANCELLATION_SCHEDULED", "sold"],
    ["TRANSFERRED_AWAY", ""],
    ["TRANSFERRED", ""],
    ["CANCELLED", "sold"],
  ]);
  const [first, , , , last] = await cancelled();
  expect(first).toMatchObject({ ipAddress: "127.0.0.1", userAgent: expect.stringContaining("grpc-node") });
  expect(last).toMatchObject({ ipAddress: "", actor: "scheduler" });
});

test("1,000 exchange requests, each sent twice, make USD 6.25 of the month's USD 2,089.59", async () => {
  const usage = createClient(UsageMeteringService, service());
  const invoices = createClient(InvoiceService, licet.as("tradsys", "viewer"));
  const customerId = "nile-brokers";
  const events = Array.from({ length: 1_000 }, (_, index) => ({
    id: `mesh-${index}`,
    customerId,
    metric: "exchange_requests",
    quantity: "1",
  }));
  await usage.trackUsageBatch({ events });
  // 100 at once: a thousand would be refused as overload, rightly.
  for (let from = 0; from < events.length; from += 100) {
    await Promise.all(events.slice(from, from + 100).map((event) => usage.trackUsage({ event })));
  }
  const today = new Date();
  const startTime = timestampFromDate(new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth())));
  const counted = async () => {
    const { totals } = await usage.getUsageStats({ customerId, metric: "exchange_requests", startTime });
    return totals[0]?.events ?? 0n;
  };
  await until("all are counted", async () => (await counted()) >= 1_000n);
  expect(await counted()).toBe(1_000n);
  const { invoice } = await invoices.previewInvoice({ customerId });
  expect(invoice?.total).toMatchObject({ currency: "USD", amountMinor: 208_959n });
  expect(invoice?.lines.map(({ metric, quantity, amount }) => [metric, quantity, amount?.amountMinor])).toEqual([
    ["", "1", 208_334n],
    ["exchange_requests", "1000", 625n],
  ]);
});

test("a revoked API key stops working everywhere", async () => {
  const tenants = createClient(TenantService, licet.as("tradsys", "admin"));
  const { apiKey, secret } = await tenants.createApiKey({
    requestId: newId(),
    name: "short-lived",
    role: ApiKeyRole.SERVICE,
  });
  const channel = patient(createChannel({ address: new URL(licet.run.grpcUrl).host, credential: secret }));
  const validation = createClient(ValidationService, channel);
  const question = { customerId: "cairo-capital", feature: "egx_access" };
  expect((await validation.validateFeature(question)).valid).toBe(true);
  await tenants.revokeApiKey({ requestId: newId(), keyId: apiKey?.keyId ?? "" });
  await until("the key is refused", () =>
    validation.validateFeature(question).then(
      () => false,
      (error) => error.reason === "CREDENTIAL_INVALID",
    ),
  );
  channel.close();
});
