/** The services as processes, two of each, on the Postgres log: what one replica is told, all of them know. */
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import type { ServiceName } from "@licet/cli/mesh/services";
import { LicensingService as FirstPlan } from "@licet/contracts/licensing/licensing_service_pb";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { DecisionReason, ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import { until } from "@licet/platform/testing/until";
import { countOf, restartAll, startLoad, verify } from "./load.ts";
import { startMesh, type TestMesh } from "./processes.ts";

const METRIC = "exchange_requests";
const PRODUCT = "trading";
const PLAN = "enterprise";
const FEATURE = "egx_access";
const both = [1, 2];
const services: readonly ServiceName[] = ["licensing", "validation", "usage-metering", "billing"];

let mesh: TestMesh;

beforeAll(async () => {
  mesh = await startMesh(2);
});

afterAll(async () => {
  const { code, endedAfterMs } = await mesh.stop();
  expect(code).toBe(0);
  expect(endedAfterMs).toBeLessThan(20_000);
});

/** Clients of one replica of each service, with every right within the demo tenant. */
function at(number: number) {
  const key = mesh.key("tradsys", "admin");
  return {
    tenants: createClient(TenantService, mesh.one("licensing", number, key)),
    customers: createClient(CustomerService, mesh.one("licensing", number, key)),
    licenses: createClient(LicensingService, mesh.one("licensing", number, key)),
    validation: createClient(ValidationService, mesh.one("validation", number, key)),
    usage: createClient(UsageMeteringService, mesh.one("usage-metering", number, key)),
    invoices: createClient(InvoiceService, mesh.one("billing", number, key)),
    firstPlan: createClient(FirstPlan, mesh.one("validation", number, key)),
  };
}

async function newCustomer(customers: ReturnType<typeof at>["customers"], name: string): Promise<string> {
  const customerId = `${name}-${newId()}`;
  await customers.createCustomer({ requestId: newId(), customerId, name });
  return customerId;
}

describe("two replicas of each service", () => {
  test("a license provisioned at one replica counts at both of validation, and its revocation too", async () => {
    const [first, second] = [at(1), at(2)];
    const customerId = await newCustomer(first.customers, "provisioned");
    const request = { requestId: newId(), customerId, product: PRODUCT, plan: PLAN };
    const { license } = await second.licenses.provisionLicense(request);
    const ask = () =>
      Promise.all(
        [first, second].map(({ validation }) => validation.validateFeature({ customerId, feature: FEATURE })),
      );
    await until("both allow", async () => (await ask()).every(({ valid }) => valid));

    await first.licenses.revokeLicense({ requestId: newId(), licenseId: license?.licenseId ?? "", reason: "test" });
    const denied = async () =>
      (await ask()).every(({ valid, reason }) => !valid && reason === DecisionReason.LICENSE_REVOKED);
    await until("both deny", denied);
  });

  test("the first plan's path is whole at one address, that of any replica of validation", async () => {
    const customerId = "cairo-capital";
    for (const number of both) {
      const { firstPlan } = at(number);
      expect(await firstPlan.validateFeature({ customerId, feature: FEATURE })).toMatchObject({ valid: true });
      expect((await firstPlan.getLicense({ customerId })).license?.plan).toBe(PLAN);
      const event = { eventId: "first-plan", customerId, metric: "first_plan_calls", quantity: 2n };
      expect(await firstPlan.trackUsage(event)).toMatchObject({ accepted: true });
    }
    const stats = () => at(2).firstPlan.getUsageStats({ customerId, metric: "first_plan_calls" });
    await until("it is counted", async () => (await stats()).totals[0]?.quantity === "2");
  });

  test("a license key issued at one replica is known to the other, by the same public keys", async () => {
    const nectar = mesh.key("nectar", "admin");
    const keysAt = (number: number) => createClient(KeyService, mesh.one("licensing", number, nectar));
    const holder = { case: "customerId", value: "self-host-gmbh" } as const;
    const { keys } = await keysAt(1).listKeys({ holder });
    const licenseIds = keys[0]?.licenses.map(({ licenseId }) => licenseId) ?? [];
    const { secret, key } = await keysAt(1).issueKey({ requestId: newId(), licenseIds });
    const [first, second] = both.map((number) => mesh.webUrl("licensing", number));
    const check = async () => {
      const response = await fetch(`${second}/licet.licensing.v1.ActivationService/CheckKey`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ key: secret, product: "workflows" }),
      });
      return ((await response.json()) as { reason: string }).reason;
    };
    expect(await check()).toBe("KEY_REASON_PERMITTED");
    const published = await Promise.all(
      [first, second].map(async (url) => (await fetch(`${url}/.well-known/jwks.json`)).json()),
    );
    expect(published[1]).toEqual(published[0]);
    expect(published[0]).toMatchObject({ keys: [{ kid: key?.kid }] });
    await keysAt(1).revokeKey({ requestId: newId(), keyId: key?.keyId ?? "" });
    expect(await check()).toBe("KEY_REASON_REVOKED");
  });

  test("an API key revoked at one replica is refused by every replica of every service", async () => {
    const { tenants } = at(1);
    const { apiKey, secret } = await tenants.createApiKey({
      requestId: newId(),
      name: "short-lived",
      role: ApiKeyRole.ADMIN,
    });
    const customerId = "nile-brokers";
    const asks = both.flatMap((number) => [
      () => createClient(CustomerService, mesh.one("licensing", number, secret)).getCustomer({ customerId }),
      () =>
        createClient(ValidationService, mesh.one("validation", number, secret)).validateFeature({
          customerId,
          feature: FEATURE,
        }),
      () =>
        createClient(UsageMeteringService, mesh.one("usage-metering", number, secret)).getUsageStats({ customerId }),
      () => createClient(InvoiceService, mesh.one("billing", number, secret)).previewInvoice({ customerId }),
    ]);
    // A replica that has called nobody yet has to connect to licensing first, within the call's own time.
    const works = (ask: () => Promise<unknown>) =>
      ask().then(
        () => true,
        () => false,
      );
    for (const ask of asks) await until("the key works", () => works(ask));

    await at(2).tenants.revokeApiKey({ requestId: newId(), keyId: apiKey?.keyId ?? "" });
    for (const ask of asks) await until("the key is refused", () => isRefused(ask));
  });

  test("events sent to both replicas, and twice, count once; the preview prices them", async () => {
    const [first, second] = [at(1), at(2)];
    const customerId = await newCustomer(first.customers, "usage");
    await first.licenses.provisionLicense({ requestId: newId(), customerId, product: PRODUCT, plan: "standard" });
    const events = Array.from({ length: 300 }, (_, index) => ({
      id: `${customerId}-${index}`,
      customerId,
      metric: METRIC,
      quantity: "2",
    }));
    await Promise.all([
      first.usage.trackUsageBatch({ events: events.slice(0, 200) }),
      second.usage.trackUsageBatch({ events: events.slice(100) }),
      ...events.slice(0, 20).map((event) => second.usage.trackUsage({ event })),
    ]);
    for (const { usage } of [first, second]) {
      await until("all are counted", async () => (await countOf(usage, customerId)).events >= 300n);
      expect(await countOf(usage, customerId)).toEqual({ events: 300n, quantity: "600" });
    }
    const { invoice } = await second.invoices.previewInvoice({ customerId });
    expect(invoice?.lines.length).toBeGreaterThan(0);
    expect(invoice).toEqual((await first.invoices.previewInvoice({ customerId })).invoice);
  });
});

describe("under steady load", () => {
  test("kill -9 of a replica of each service fails no call and loses nothing acknowledged", async () => {
    const load = startLoad(mesh);
    for (const service of services) await mesh.restart(service, 1, "SIGKILL");
    await verify(mesh, await load.stop());
  }, 300_000);

  test(
    "a rolling restart of every replica fails no call, loses nothing acknowledged, and each ends in time",
    () => restartAll(mesh, 1),
    540_000,
  );
});

async function isRefused(ask: () => Promise<unknown>): Promise<boolean> {
  try {
    await ask();
    return false;
  } catch (error) {
    if (error instanceof ServiceError && error.reason === "CREDENTIAL_INVALID") return true;
    throw error;
  }
}
