import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import { until } from "@licet/platform/testing/until";
import { createLicet, type LocalLicet } from "@licet/sdk";
import { startLicet, type TestLicet } from "./licet.ts";

const CLIENTS = 5;

let licet: TestLicet;
let stopped: Promise<void> | undefined;
const directories: string[] = [];
const stop = (): Promise<void> => {
  stopped ??= licet.stop();
  return stopped;
};
beforeAll(async () => {
  licet = await startLicet({ seed: true });
}, 60_000);
afterAll(async () => {
  await stop();
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

function open(cacheDir: string): LocalLicet {
  const apiKey = licet.run.apiKeys.tradsys?.service ?? "";
  return createLicet({ mode: "local", address: new URL(licet.run.grpcUrl).host, apiKey, cacheDir });
}

async function provisioned(): Promise<{ customerId: string; licenseId: string }> {
  const customerId = `sdk-${newId()}`;
  const brand = licet.as("tradsys", "brand");
  await createClient(CustomerService, brand).createCustomer({ requestId: newId(), customerId, name: "SDK" });
  const wanted = { requestId: newId(), customerId, product: "trading", plan: "enterprise" };
  const { license } = await createClient(LicensingService, brand).provisionLicense(wanted);
  return { customerId, licenseId: license?.licenseId ?? "" };
}

test("every SDK sees a revocation, and decides with everything gone and behind a restart", async () => {
  const caches = Array.from({ length: CLIENTS }, () => mkdtempSync(path.join(tmpdir(), "licet-mesh-sdk-")));
  directories.push(...caches);
  const clients = caches.map(open);
  await Promise.all(clients.map((client) => client.ready()));
  const [kept, revoked] = [await provisioned(), await provisioned()];
  const all = (customerId: string, reason: string) => () =>
    clients.every((client) => client.check(customerId, "egx_access").reason === reason);
  await until(
    "all know both customers",
    () => all(kept.customerId, "ALLOWED")() && all(revoked.customerId, "ALLOWED")(),
  );

  const licenses = createClient(LicensingService, licet.as("tradsys", "brand"));
  await licenses.revokeLicense({ requestId: newId(), licenseId: revoked.licenseId, reason: "test" });
  await until("all see the revocation", all(revoked.customerId, "LICENSE_REVOKED"));

  await stop();
  expect(all(kept.customerId, "ALLOWED")()).toBe(true);
  expect(all(revoked.customerId, "LICENSE_REVOKED")()).toBe(true);

  await Promise.all(clients.map((client) => client.close()));
  const again = open(caches[0] ?? "");
  try {
    await again.ready();
    expect(again.check(kept.customerId, "egx_access")).toMatchObject({ allowed: true, source: "SDK" });
    expect(again.check(revoked.customerId, "egx_access").reason).toBe("LICENSE_REVOKED");
  } finally {
    await again.close();
  }
});
