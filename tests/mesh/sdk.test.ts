import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createClient } from "@connectrpc/connect";
import { afterAll, afterEach, beforeAll, expect, jest, test } from "@jest/globals";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import { until } from "@licet/platform/testing/until";
import { createLicet, type LocalLicet, type Verdict } from "@licet/sdk";
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
});
afterAll(async () => {
  await stop();
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

afterEach(() => void jest.restoreAllMocks());

const HOUR_MS = 3_600_000;

/** How far this process's clocks are moved. */
function moveClocks(): { wallMs: number; steadyMs: number } {
  const moved = { wallMs: 0, steadyMs: 0 };
  const [wall, steady] = [Date.now.bind(Date), performance.now.bind(performance)];
  jest.spyOn(Date, "now").mockImplementation(() => wall() + moved.wallMs);
  jest.spyOn(performance, "now").mockImplementation(() => steady() + moved.steadyMs);
  return moved;
}

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

test("every SDK sees a revocation, and decides with everything gone, behind restarts and set-back clocks, for the grace", async () => {
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

  // From here on from the disk: the features' grace of 300 s, behind the 30 s for which facts are young, and no more of it.
  const clock = moveClocks();
  const pass = (ms: number): void => {
    clock.wallMs += ms;
    clock.steadyMs += ms;
  };
  const setBack = (): void => {
    clock.wallMs -= HOUR_MS;
    clock.steadyMs -= HOUR_MS;
  };
  await restarted(caches[0] ?? "", kept.customerId, ({ reason, degraded, source }) => {
    expect([reason, degraded, source]).toEqual(["ALLOWED", false, "SDK"]);
    pass(31_000);
  });
  setBack();
  await restarted(caches[0] ?? "", kept.customerId, ({ reason, degraded }) => {
    expect([reason, degraded]).toEqual(["ALLOWED", true]);
    pass(300_000);
  });
  setBack();
  await restarted(caches[0] ?? "", kept.customerId, ({ reason }) => expect(reason).toBe("FACTS_TOO_OLD"));
  await restarted(caches[0] ?? "", revoked.customerId, ({ reason }) => expect(reason).toBe("LICENSE_REVOKED"));
});

/** Looks at what a client that begins anew from the disk says, and ends it as a process does that is told to. */
async function restarted(cacheDir: string, customerId: string, look: (verdict: Verdict) => void): Promise<void> {
  const licet = open(cacheDir);
  try {
    await licet.ready();
    look(licet.check(customerId, "egx_access"));
  } finally {
    await licet.close();
  }
}
