import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { newId } from "@licet/platform/ids";
import { createChannel } from "@licet/platform/rpc/client";
import { type Benchmark, quantile, type Row } from "./report.ts";
import { startStandalone } from "./standalone.ts";

const revokes = 300;
/** ValidateFeature calls under way all the time, beside the revokes. */
const loadConcurrency = 8;
/** After so long a revocation counts as lost. */
const giveUpMs = 10_000;
const product = "trading";
const feature = "egx_access";

/**
 * How long a revocation takes to be seen: from the acknowledgement of
 * RevokeLicense to the first denial, through history, relay, event log and
 * replica of a whole Licet. The baseline is what the same client needs for a
 * ValidateFeature that waits for nothing: no delay shorter than that shows.
 */
export const revocation: Benchmark = {
  about: `${revokes} revokes under ValidateFeature load: acknowledgement to first denial, against one plain call`,
  async run() {
    const licet = await startStandalone();
    try {
      const clients = await createClients(licet.address, licet.operatorKey);
      const licenses = await provision(clients);
      return [toRow(await measure(clients, licenses))];
    } finally {
      await licet.stop();
    }
  },
};

type Clients = Awaited<ReturnType<typeof createClients>>;

/** Clients of a new tenant with one product and one feature. */
async function createClients(address: string, operatorKey: string) {
  const operator = createClient(TenantService, createChannel({ address, credential: operatorKey }));
  const tenant = await operator.createTenant({ requestId: newId(), tenantId: "bench", name: "Bench" });
  const channel = createChannel({ address, credential: tenant.adminApiKeySecret });
  const catalog = createClient(CatalogService, channel);
  await catalog.createProduct({ requestId: newId(), product, name: "Trading" });
  await catalog.createFeature({ requestId: newId(), product, feature, name: "EGX access" });
  return {
    customers: createClient(CustomerService, channel),
    licenses: createClient(LicensingService, channel),
    validation: createClient(ValidationService, channel),
  };
}

interface Held {
  readonly customerId: string;
  readonly licenseId: string;
}

/** One customer and license for each revoke to come, all of them allowed already. */
async function provision({ customers, licenses, validation }: Clients): Promise<Held[]> {
  const held: Held[] = [];
  for (let index = 0; index < revokes; index++) {
    const customerId = `customer-${index}`;
    await customers.createCustomer({ requestId: newId(), customerId, name: customerId });
    const { license } = await licenses.provisionLicense({
      requestId: newId(),
      customerId,
      product,
      seats: 5,
      validUntil: timestampFromMs(Date.now() + 86_400_000),
    });
    if (license === undefined) throw new Error("ProvisionLicense answered without a license");
    held.push({ customerId, licenseId: license.licenseId });
  }
  for (const { customerId } of held) await seen(() => isValid(validation, customerId));
  return held;
}

interface Delays {
  /** From the acknowledgement of each revoke to its first denial, in milliseconds. */
  readonly denials: readonly number[];
  /** Of each call of the load, in milliseconds. */
  readonly calls: readonly number[];
}

async function measure({ licenses, validation }: Clients, held: readonly Held[]): Promise<Delays> {
  const denials: number[] = [];
  const calls: number[] = [];
  let running = true;
  const load = async (): Promise<void> => {
    while (running) {
      const { customerId } = held[Math.floor(Math.random() * held.length)] as Held;
      const begunAt = performance.now();
      await isValid(validation, customerId);
      calls.push(performance.now() - begunAt);
    }
  };
  const loads = Array.from({ length: loadConcurrency }, load);
  try {
    for (const { customerId, licenseId } of held) {
      await licenses.revokeLicense({ requestId: newId(), licenseId, reason: "bench" });
      const acknowledgedAt = performance.now();
      await seen(async () => !(await isValid(validation, customerId)));
      denials.push(performance.now() - acknowledgedAt);
    }
  } finally {
    running = false;
    await Promise.all(loads);
  }
  return { denials, calls };
}

function toRow({ denials, calls }: Delays): Row {
  for (const [name, delays] of [
    ["revocation to denial", denials],
    ["plain call", calls],
  ] as const) {
    const [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1].map((q) => quantile(delays, q).toFixed(1));
    console.log(`${name}, ms: p50 ${p50}, p90 ${p90}, p99 ${p99}, max ${max} (${delays.length})`);
  }
  const ours = quantile(denials, 0.99);
  return {
    name: "revocation to denial, p99",
    baseline: quantile(calls, 0.99),
    ours,
    unit: "ms",
    target: "< 1000 ms",
    met: ours < 1_000,
  };
}

async function isValid(validation: Clients["validation"], customerId: string): Promise<boolean> {
  return (await validation.validateFeature({ customerId, feature })).valid;
}

async function seen(check: () => Promise<boolean>): Promise<void> {
  const giveUpAt = performance.now() + giveUpMs;
  while (!(await check())) {
    if (performance.now() > giveUpAt) throw new Error(`a change was not seen within ${giveUpMs} ms`);
  }
}
