import { randomBytes } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { asAdministrator } from "@licet/platform/database/roles";
import { createLifecycle } from "@licet/platform/lifecycle";
import { createLogger } from "@licet/platform/logging";
import type { ServiceBinding } from "@licet/platform/rpc/handlers";
import { testServerUrl } from "@licet/platform/testing/database";
import { openDatabaseServer } from "../src/databases.ts";
import { demoTenants, LAST_LICENSE } from "../src/demo.ts";
import { createInsider } from "../src/insider.ts";
import { seed } from "../src/seed.ts";
import { createServices, type Services } from "../src/services.ts";

const databasePrefix = `test_seed_${randomBytes(4).toString("hex")}`;
const logger = createLogger({ level: "silent", name: "test" });
const lifecycle = createLifecycle({ logger });
let services: Services;

beforeAll(async () => {
  const databases = await openDatabaseServer({
    databaseUrl: testServerUrl(),
    databasePrefix,
    dataDir: "",
    ephemeral: false,
    logger,
    onEmbedded: () => undefined,
  });
  const secrets = { masterKeys: [{ id: "1", key: randomBytes(32) }], currentMasterKey: "1" };
  services = await createServices({ databases, secrets, now: () => new Date(), logger, lifecycle });
});
afterAll(async () => {
  await lifecycle.shutdown();
  await asAdministrator(testServerUrl(), async (client) => {
    for (const name of ["bus", "licensing", "metering"]) {
      await client.query(`DROP DATABASE ${databasePrefix}_${name} WITH (FORCE)`);
    }
  });
});

/** The services, of which licensing fails at the load's last license. */
function failingAtTheEnd(): ServiceBinding[] {
  return services.bindings.map((binding) => {
    const { provisionLicense } = binding.implementation;
    if (provisionLicense === undefined) return binding;
    const failing: typeof provisionLicense = (call, request) => {
      if ("licenseId" in request && request.licenseId === LAST_LICENSE.licenseId) throw new Error("planted");
      return provisionLicense(call, request);
    };
    return { ...binding, implementation: { ...binding.implementation, provisionLicense: failing } };
  });
}

const daysFromNow = (days: number) => new Date(Date.now() + days * 86_400_000);

test("a load that failed is completed on a later day, when its dates would be others; then nothing is left to do", async () => {
  const { signal } = new AbortController();
  const first = seed({ insider: createInsider(failingAtTheEnd(), logger), now: daysFromNow(-40), signal });
  await expect(first).rejects.toThrow("internal error");

  const insider = createInsider(services.bindings, logger);
  await seed({ insider, now: new Date(), signal });
  for (const { tenantId, customers } of demoTenants) {
    const client = createClient(LicensingService, insider(tenantId));
    for (const { customerId, licenses } of customers) {
      const holder = { case: "customerId", value: customerId } as const;
      const found = (await client.listLicenses({ holder })).licenses.map(({ licenseId }) => licenseId);
      expect(found.sort()).toEqual(licenses.map(({ licenseId }) => licenseId));
    }
  }
  expect(await seed({ insider, now: new Date(), signal })).toEqual({});
});
