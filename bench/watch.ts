import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { newId } from "@licet/platform/ids";
import { createChannel } from "@licet/platform/rpc/client";
import { startChild } from "./child.ts";
import { type Mesh, startMesh } from "./mesh.ts";
import { type Benchmark, quantile, type Row } from "./report.ts";
import type { Held, WatchReport, WatchRequest } from "./watch-load.ts";

const SDKS = 50;
const REVOCATIONS = 1_000;
/** A revocation is sent so long, in milliseconds, after the one before it. */
const EVERY_MS = 50;
/** Customers that are provisioned at once, before anything is measured. */
const AT_ONCE = 8;
const DAY_MS = 86_400_000;
const PRODUCT = "trading";
const FEATURE = "egx_access";

/**
 * How long a revocation takes to reach SDKs that decide by themselves: from its acknowledgement through history, relay,
 * event log, replica and watch to the first denial of each. The baseline is what a plain call takes beside it.
 */
export const watch: Benchmark = {
  about:
    `${REVOCATIONS} licenses revoked and suspended, ${1_000 / EVERY_MS} a second, before ${SDKS} SDKs in local mode: ` +
    "acknowledgement to denial in each, against one plain call",
  async run() {
    const mesh = await startMesh(0);
    const load = startChild("watch-load.ts", [], 1);
    try {
      const { credential, held } = await provision(mesh);
      const request: WatchRequest = {
        licensing: mesh.address("licensing"),
        validation: mesh.address("validation"),
        credential,
        sdks: SDKS,
        held,
        feature: FEATURE,
        everyMs: EVERY_MS,
      };
      return toRows(mesh, await load.ask<WatchReport>(request));
    } finally {
      await load.stop();
      await mesh.stop();
    }
  },
};

/** A new tenant with a license for each revocation to come. @returns its admin's API key, and the licenses. */
async function provision(mesh: Mesh): Promise<{ readonly credential: string; readonly held: readonly Held[] }> {
  const address = mesh.address("licensing");
  const operator = createChannel({ address, credential: mesh.operatorKey });
  const tenants = createClient(TenantService, operator);
  const { adminApiKeySecret } = await tenants.createTenant({ requestId: newId(), tenantId: "bench", name: "Bench" });
  operator.close();
  const channel = createChannel({ address, credential: adminApiKeySecret });
  const catalog = createClient(CatalogService, channel);
  await catalog.createProduct({ requestId: newId(), product: PRODUCT, name: "Trading" });
  await catalog.createFeature({ requestId: newId(), product: PRODUCT, feature: FEATURE, name: "EGX access" });
  const customers = createClient(CustomerService, channel);
  const licenses = createClient(LicensingService, channel);
  const validUntil = timestampFromMs(Date.now() + DAY_MS);
  const held: Held[] = [];
  const provisionSome = async (first: number): Promise<void> => {
    for (let index = first; index < REVOCATIONS; index += AT_ONCE) {
      const customerId = `customer-${index}`;
      await customers.createCustomer({ requestId: newId(), customerId, name: customerId });
      const wanted = { requestId: newId(), customerId, product: PRODUCT, seats: 5, validUntil };
      const { license } = await licenses.provisionLicense(wanted);
      if (license === undefined) throw new Error("ProvisionLicense answered without a license");
      held.push({ customerId, licenseId: license.licenseId });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, (_, first) => provisionSome(first)));
  channel.close();
  return { credential: adminApiKeySecret, held };
}

function toRows({ events }: Mesh, { sightings, calls, connections }: WatchReport): Row[] {
  console.log(`${SDKS} SDKs on ${connections} connections, events through ${events}`);
  for (const [name, delays] of Object.entries({ "revocation to denial": sightings, "plain call": calls })) {
    const [p50, p99, max] = [0.5, 0.99, 1].map((q) => quantile(delays, q).toFixed(1));
    console.log(`${name}, ms: p50 ${p50}, p99 ${p99}, max ${max} (${delays.length})`);
  }
  const expected = SDKS * REVOCATIONS;
  const delayRow = (name: string, q: number, target: string, limitMs: number): Row => {
    const [baseline, ours] = [quantile(calls, q), quantile(sightings, q)];
    const what = `revocation to denial in ${SDKS} SDKs through ${events}, ${name}`;
    return { name: what, baseline, ours, unit: "ms", target, met: ours < limitMs };
  };
  return [
    delayRow("p50", 0.5, "< 100 ms", 100),
    delayRow("p99", 0.99, "< 1000 ms (aim: < 100)", 1_000),
    delayRow("max", 1, "< 30000 ms (as in a partition)", 30_000),
    {
      name: "denials seen",
      baseline: expected,
      ours: sightings.length,
      unit: "denials",
      target: "all",
      met: sightings.length === expected,
    },
  ];
}
