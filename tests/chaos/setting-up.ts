import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { Cycle, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { createChannel } from "@licet/platform/rpc/client";
import { type Caller, insist, openCaller, type Place } from "./caller.ts";
import { productOf } from "./licenses.ts";
import {
  BASE_PRICE_CENTS,
  extraFeatures,
  features,
  INCLUDED_PER_MONTH,
  metric,
  planFeatures,
  tenants,
  UNIT_PRICE_DOLLARS,
  USING_CUSTOMERS,
  usingCustomer,
} from "./model.ts";
import type { Stage } from "./stage.ts";

/** What the clients and the checker find when the run begins. */
export interface Scene {
  readonly place: Place;
  /** License that a customer's usage is billed by, by tenant and customer. */
  readonly licenses: Readonly<Record<string, string>>;
  /** When these licenses began, in epoch milliseconds: a UTC midnight. */
  readonly licensedFrom: number;
}

const DAY_MS = 86_400_000;
/** How long a tenant's products and customers are tried for. */
const SETTING_UP_MS = 120_000;

/** Creates the tenants, what they sell, and the customers who use, before anything is broken. */
export async function setUp(stage: Stage, workers: number): Promise<Scene> {
  const of = (service: string): string[] =>
    stage.replicas.filter(({ plan }) => plan.service === service).map(stage.address);
  const addresses = {
    licensing: `ipv4:${of("licensing")}`,
    metering: `ipv4:${of("usage-metering")}`,
    billing: `ipv4:${of("billing")}`,
  };
  const operator = createChannel({ address: addresses.licensing, credential: stage.operatorKey });
  const administration = createClient(TenantService, operator);
  const keys: Record<string, string> = {};
  for (const tenantId of tenants) {
    const wanted = { requestId: `tenant-${tenantId}`, tenantId, name: tenantId };
    const created = await insist(() => administration.createTenant(wanted), AbortSignal.timeout(SETTING_UP_MS));
    keys[tenantId] = created.adminApiKeySecret;
  }
  operator.close();
  const validation = Object.fromEntries(
    stage.replicas.flatMap((one) => (one.plan.service === "validation" ? [[one.name, stage.address(one)]] : [])),
  );
  const place: Place = { addresses, validation, keys };
  const licensedFrom = Math.floor(Date.now() / DAY_MS) * DAY_MS - DAY_MS;
  const licenses: Record<string, string> = {};
  for (const tenant of tenants) {
    const caller = openCaller(place, tenant);
    // By request ids that stay, so that a busy machine's deadline is no failure.
    const patience = AbortSignal.timeout(SETTING_UP_MS);
    await insist(() => sell(caller, workers), patience);
    for (let number = 0; number < USING_CUSTOMERS; number++) {
      const customer = usingCustomer(number);
      licenses[`${tenant}/${customer}`] = await insist(() => furnish(caller, customer, licensedFrom), patience);
    }
    caller.close();
  }
  return { place, licenses, licensedFrom };
}

async function sell({ catalog }: Caller, workers: number): Promise<void> {
  for (let worker = 0; worker < workers; worker++) {
    const product = productOf(worker);
    await catalog.createProduct({ requestId: product, product, name: product });
    for (const [feature, { failMode }] of Object.entries(features)) {
      await catalog.createFeature({ requestId: `${product}-${feature}`, product, feature, name: feature, failMode });
    }
    const terms = {
      type: LicenseType.STANDARD,
      features: [...planFeatures],
      grantableFeatures: [...extraFeatures],
    };
    await catalog.createPlan({ requestId: `${product}-basic`, product, plan: "basic", name: "Basic", terms });
  }
  await catalog.createProduct({ requestId: "usage", product: "usage", name: "Usage" });
  await catalog.createFeature({ requestId: "usage", product: "usage", feature: "use", name: "Use" });
  const terms = {
    type: LicenseType.STANDARD,
    features: ["use"],
    price: { currency: "USD", amountMinor: BigInt(BASE_PRICE_CENTS) },
    priceCycle: Cycle.MONTH,
    usagePrices: [
      {
        metric,
        includedPerMonth: BigInt(INCLUDED_PER_MONTH),
        unitPrice: { currency: "USD", decimal: UNIT_PRICE_DOLLARS },
      },
    ],
  };
  await catalog.createPlan({ requestId: "metered", product: "usage", plan: "metered", name: "Metered", terms });
}

async function furnish({ customers, licenses }: Caller, customerId: string, licensedFrom: number): Promise<string> {
  await customers.createCustomer({ requestId: customerId, customerId, name: customerId });
  const { license } = await licenses.provisionLicense({
    requestId: `use-${customerId}`,
    customerId,
    product: "usage",
    plan: "metered",
    validFrom: timestampFromMs(licensedFrom),
  });
  return license?.licenseId ?? "";
}
