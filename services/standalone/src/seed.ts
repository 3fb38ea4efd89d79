import { createHash } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { ActivationService } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import { ServiceError } from "@licet/platform/errors";
import {
  type DemoCustomer,
  type DemoLicense,
  type DemoProduct,
  type DemoSeat,
  type DemoTenant,
  type DemoUsage,
  dayFrom,
  demoTenants,
  LAST_LICENSE,
} from "./demo.ts";
import type { Insider } from "./insider.ts";
import type { ApiKeys } from "./run-file.ts";

/** Events in one batch; the contract allows 1,000. */
const BATCH = 500;

/** What {@link seed} needs. */
export interface SeedOptions {
  readonly insider: Insider;
  /** Today: the times of licenses and usage hang on it. */
  readonly now: Date;
  /** Aborts when the load is to be given up. */
  readonly signal: AbortSignal;
}

/**
 * Loads the demo data through the services' own RPCs, unless it is all there. Every step can be repeated (fixed request
 * ids, what exists is left as it is), so a load that was cut off is completed by the next start.
 *
 * @returns the first key of each tenant that was created.
 */
export async function seed({ insider, now, signal }: SeedOptions): Promise<ApiKeys> {
  if (await isComplete(insider)) return {};
  const firstKeys: Record<string, Record<string, string>> = {};
  for (const tenant of demoTenants) {
    const key = await createTenant(insider, tenant);
    if (key !== undefined) firstKeys[tenant.tenantId] = { admin: key };
    for (const product of tenant.products) await createProduct(insider(tenant.tenantId), product);
    await trackUsage(insider(tenant.tenantId), tenant, now);
    for (const customer of tenant.customers) {
      signal.throwIfAborted();
      await createCustomer(insider(tenant.tenantId), customer, now);
    }
  }
  return firstKeys;
}

async function isComplete(insider: Insider): Promise<boolean> {
  const licenses = createClient(LicensingService, insider(LAST_LICENSE.tenantId));
  try {
    await licenses.getLicense({ licenseId: LAST_LICENSE.licenseId });
    return true;
  } catch (error) {
    if (error instanceof ServiceError && error.code === "NOT_FOUND") return false;
    throw error;
  }
}

/** Undefined where an earlier load has done the step, be it on another day with other dates. */
async function once<T>(step: Promise<T>): Promise<T | undefined> {
  try {
    return await step;
  } catch (error) {
    const done =
      error instanceof ServiceError && (error.code === "ALREADY_EXISTS" || error.reason === "REQUEST_ID_REUSED");
    if (done) return undefined;
    throw error;
  }
}

async function createTenant(insider: Insider, { tenantId, name }: DemoTenant): Promise<string | undefined> {
  const client = createClient(TenantService, insider());
  const created = await once(client.createTenant({ requestId: `demo-${tenantId}`, tenantId, name }));
  return created?.adminApiKeySecret;
}

async function createProduct(transport: ReturnType<Insider>, demo: DemoProduct): Promise<void> {
  const catalog = createClient(CatalogService, transport);
  const { product, name, graceDays, offlineDays = 0, seatPolicy } = demo;
  const described = { product, name, graceDays, offlineDays, ...demo.keys, ...(seatPolicy && { seatPolicy }) };
  await once(catalog.createProduct({ requestId: `demo-${product}`, ...described }));
  for (const [feature, featureName] of Object.entries(demo.features)) {
    const reduceOnly = demo.reduceOnly?.includes(feature) ?? false;
    const requestId = `demo-${product}-${feature}`;
    await once(catalog.createFeature({ requestId, product, feature, name: featureName, reduceOnly }));
  }
  for (const plan of demo.plans) {
    await once(catalog.createPlan({ requestId: `demo-${product}-${plan.plan}`, product, ...plan }));
  }
  for (const addOn of demo.addOns ?? []) {
    await once(catalog.createAddOn({ requestId: `demo-${product}-${addOn.addOn}`, product, ...addOn }));
  }
}

async function createCustomer(transport: ReturnType<Insider>, demo: DemoCustomer, now: Date): Promise<void> {
  const customers = createClient(CustomerService, transport);
  const { customerId, name, email, industry, employeeCount } = demo;
  const requestId = `demo-${customerId}`;
  await once(customers.createCustomer({ requestId, customerId, name, email, industry, employeeCount }));
  for (const license of demo.licenses) await provision(transport, customerId, license, now);
}

async function provision(
  transport: ReturnType<Insider>,
  customerId: string,
  { licenseId, product, plan, valid, billingCycle, addOns = [], key, seats = [], suspendedFor }: DemoLicense,
  now: Date,
): Promise<void> {
  const licenses = createClient(LicensingService, transport);
  const wantedKey = key === undefined ? undefined : await keyFor(transport, key);
  const { from, until } = valid(now);
  const provisioned = await once(
    licenses.provisionLicense({
      requestId: `demo-${licenseId}`,
      licenseId,
      customerId,
      product,
      plan,
      addOns: [...addOns],
      validFrom: timestampFromDate(from),
      ...(until && { validUntil: timestampFromDate(until) }),
      ...(billingCycle !== undefined && { billingCycle }),
      ...(wantedKey && { key: wantedKey }),
    }),
  );
  if (seats.length > 0) {
    const secret = provisioned?.keySecret ?? (await keyOf(transport, licenseId));
    if (secret !== undefined) await activate(transport, secret, product, seats);
  }
  if (suspendedFor !== undefined) {
    await licenses.suspendLicense({ requestId: `demo-suspend-${licenseId}`, licenseId, reason: suspendedFor });
  }
}

/** The key of a license that an earlier load made. None: it was loaded by a version that knew no keys. */
async function keyOf(transport: ReturnType<Insider>, licenseId: string): Promise<string | undefined> {
  const keys = createClient(KeyService, transport);
  const [key] = (await keys.listKeys({ holder: { case: "licenseId", value: licenseId } })).keys;
  if (!key) return undefined;
  return (await keys.revealKey({ requestId: `demo-${licenseId}`, keyId: key.keyId, reason: "demo data" })).secret;
}

/** Takes seats as installed products do. */
async function activate(
  transport: ReturnType<Insider>,
  key: string,
  product: string,
  seats: readonly DemoSeat[],
): Promise<void> {
  const activations = createClient(ActivationService, transport);
  for (const { type, id, displayName, version } of seats) {
    const requestId = `demo-${id}`;
    await activations.activateInstance({ requestId, key, product, instance: { type, id }, displayName, version });
  }
}

type WantedKey = { case: "issueKey"; value: true } | { case: "keyId"; value: string };

async function keyFor(transport: ReturnType<Insider>, key: string): Promise<WantedKey | undefined> {
  if (key === "new") return { case: "issueKey", value: true };
  const { keys } = await createClient(KeyService, transport).listKeys({ holder: { case: "licenseId", value: key } });
  // None: the license was loaded by a version that knew no keys.
  const [first] = keys;
  return first && { case: "keyId", value: first.keyId };
}

async function trackUsage(transport: ReturnType<Insider>, tenant: DemoTenant, now: Date): Promise<void> {
  const metering = createClient(UsageMeteringService, transport);
  const events = tenant.customers.flatMap(({ customerId, usage }) =>
    usage.flatMap((series) => usageEvents(customerId, series, now)),
  );
  for (let start = 0; start < events.length; start += BATCH) {
    await metering.trackUsageBatch({ events: events.slice(start, start + BATCH) });
  }
}

/** One event a day, at noon. What a day's event says depends on nothing but the day: loaded again, it is a duplicate. */
function usageEvents(customerId: string, series: DemoUsage, now: Date): MessageInitShape<typeof UsageEventSchema>[] {
  const { metric, licenseId, feature = "", exactly, typical = 0 } = series;
  const { first, last } = series.days(now);
  const events: MessageInitShape<typeof UsageEventSchema>[] = [];
  for (let day = first; day <= last; day++) {
    const date = dayFrom(now, day);
    const id = `${customerId}/${metric}/${date.toISOString().slice(0, 10)}`;
    events.push({
      id,
      source: "demo",
      customerId,
      licenseId,
      metric,
      feature,
      quantity: exactly ?? String(amountOf(id, date, typical)),
      occurredAt: timestampFromDate(new Date(date.getTime() + 12 * 3_600_000)),
    });
  }
  return events;
}

/** Between 75 and 125 % of the typical amount, a third of that at weekends, the same for the same event. */
function amountOf(id: string, date: Date, typical: number): number {
  const spread = 0.75 + (0.5 * createHash("sha256").update(id).digest().readUInt32BE()) / 2 ** 32;
  const weekend = date.getUTCDay() === 0 || date.getUTCDay() === 6;
  return Math.round(typical * spread * (weekend ? 1 / 3 : 1));
}
