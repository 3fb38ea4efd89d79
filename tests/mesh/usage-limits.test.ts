/** What is tracked comes to count against limits, by all services together, on the demo data. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import {
  DecisionReason,
  LimitSource,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { asAdministrator } from "@licet/platform/database/roles";
import { newId } from "@licet/platform/ids";
import { testServerUrl } from "@licet/platform/testing/database";
import { until } from "@licet/platform/testing/until";
import { createLicet, type LocalLicet } from "@licet/sdk";
import { startLicet, type TestLicet } from "./licet.ts";

const metric = "workflow_executions";
const tenant = "nectar";

let licet: TestLicet;
beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet.stop());

/** A customer with two licenses of 10,000 executions a month each, what it may do and what it uses. */
async function newCustomer() {
  const admin = licet.as(tenant, "admin");
  const { customer } = await createClient(CustomerService, admin).createCustomer({ requestId: newId(), name: "C" });
  const customerId = customer?.customerId as string;
  const licensing = createClient(LicensingService, admin);
  const provision = async () => {
    const ask = { requestId: newId(), customerId, product: "workflows", plan: "team" };
    const { license, consistencyToken } = await licensing.provisionLicense(ask);
    return {
      licenseId: license?.licenseId as string,
      atLeast: consistencyToken as NonNullable<typeof consistencyToken>,
    };
  };
  const first = await provision();
  const { licenseId: secondId, atLeast } = await provision();
  const service = licet.as(tenant, "service");
  const validation = createClient(ValidationService, service);
  const usage = createClient(UsageMeteringService, service);
  return {
    customerId,
    licenseIds: [first.licenseId, secondId] as const,
    check: () => validation.validateFeature({ customerId, feature: "workflows", atLeast }),
    track: (...events: MessageInitShape<typeof UsageEventSchema>[]) =>
      usage.trackUsageBatch({ events: events.map((event) => ({ id: newId(), customerId, metric, ...event })) }),
    counted: async () => (await usage.getUsageStats({ customerId, metric })).totals[0]?.quantity,
  };
}

test("usage up to a hard limit a month denies, under the license that it names or under all", async () => {
  const { licenseIds, check, track, counted } = await newCustomer();
  const [licenseId, otherId] = licenseIds;
  expect((await check()).valid).toBe(true);

  const all = { id: newId(), licenseId, quantity: "10000" };
  await track(all, all);
  await until("the other license decides", async () => (await check()).license?.licenseId === otherId);
  expect(await check()).toMatchObject({ valid: true, limitViolations: [] });

  await track({ quantity: "9999.5" });
  await track(all);
  await until("it is counted", async () => (await counted()) === "19999.5");
  expect((await check()).valid).toBe(true);
  await track({ licenseId: otherId, quantity: "0.5" });
  await until("nothing is left", async () => !(await check()).valid);
  const denied = await check();
  expect(denied).toMatchObject({
    reason: DecisionReason.LIMIT_EXCEEDED,
    limitViolations: [{ metric, limit: 10_000n, window: LimitWindow.PER_MONTH, source: LimitSource.USAGE }],
    degraded: false,
  });
  expect(denied.usageStalenessMs).toBeGreaterThanOrEqual(0n);
});

test("while usage metering can't tell what was used, decisions go on, and say how old that is", async () => {
  const { check, track } = await newCustomer();
  await track({ quantity: "20000" });
  await until("nothing is left", async () => !(await check()).valid);
  const ageMs = async () => Number((await check()).usageStalenessMs);
  await until("it is young", async () => (await ageMs()) < 3_000);

  const url = new URL(testServerUrl());
  url.pathname = `/${licet.databasePrefix}_metering`;
  await asAdministrator(url.href, async (admin) => {
    await admin.query("BEGIN");
    await admin.query("LOCK TABLE usage_level IN ACCESS EXCLUSIVE MODE");
    await until("it is old", async () => (await ageMs()) > 5_000);
    expect(await check()).toMatchObject({ reason: DecisionReason.LIMIT_EXCEEDED, degraded: false });
    await admin.query("ROLLBACK");
  });
  await until("it is young again", async () => (await ageMs()) < 3_000);
});

function openSdk(customerId: string, cacheDir: string): LocalLicet {
  const apiKey = licet.run.apiKeys[tenant]?.service ?? "";
  const address = new URL(licet.run.grpcUrl).host;
  return createLicet({ mode: "local", address, apiKey, cacheDir, customerIds: [customerId] });
}

test("an SDK that decides itself denies by what was tracked, knows its age, and remembers both", async () => {
  const { customerId, check, track } = await newCustomer();
  const cacheDir = mkdtempSync(path.join(tmpdir(), "licet-mesh-usage-"));
  let sdk = openSdk(customerId, cacheDir);
  try {
    await sdk.ready();
    await until("it is vouched for that nothing was used", () => {
      const { allowed, usageStalenessMs } = sdk.check(customerId, "workflows");
      return allowed && usageStalenessMs !== undefined;
    });
    await track({ quantity: "10000" });
    await until("the SDK denies", () => !sdk.check(customerId, "workflows").allowed);
    expect(sdk.check(customerId, "workflows")).toMatchObject({
      reason: "LIMIT_EXCEEDED",
      limitViolations: [{ metric, current: "10000", limit: 10_000n, window: "PER_MONTH", source: "USAGE" }],
      degraded: false,
      source: "SDK",
    });
    expect((await check()).valid).toBe(false);
    // Nothing is used any more, and usage metering goes on saying so.
    const told = sdk.check(customerId, "workflows");
    let ageMs = told.usageStalenessMs ?? 0;
    await until("the verdict is vouched for again", () => {
      const before = ageMs;
      ageMs = told.usageStalenessMs ?? 0;
      return ageMs < before;
    });
    await sdk.close();

    sdk = openSdk(customerId, cacheDir);
    expect(sdk.check(customerId, "workflows").reason).toBe("LIMIT_EXCEEDED");
  } finally {
    await sdk.close();
    rmSync(cacheDir, { recursive: true, force: true });
  }
});
