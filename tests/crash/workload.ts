import { setTimeout as delay } from "node:timers/promises";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ServiceError } from "@licet/platform/errors";

/** How often a call is repeated until it is acknowledged; with the pauses below, some minutes. */
const MAX_ATTEMPTS = 2_000;
const METRIC = "exchange_requests";
const BATCH = 10;
const CUSTOMERS = 7;

/** What the server acknowledged, as the callers remember it; they outlive all crashes. */
export interface Journal {
  /** License id by customer. */
  readonly provisioned: Map<string, string>;
  /** Event ids. */
  readonly tracked: Set<string>;
  /** Calls that failed or were cut off, and were repeated. */
  repeated: number;
  /** Aborted when the run has failed, so that nobody insists any longer. */
  readonly signal: AbortSignal;
}

/** Calls until there is an answer. Only what a crash can cause is repeated; anything else is a finding. */
export async function insist<T>(journal: Journal, call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const crash =
        error instanceof ServiceError &&
        ["UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"].includes(error.code);
      if (!crash || attempt === MAX_ATTEMPTS || journal.signal.aborted) throw error;
      journal.repeated += 1;
      await delay(20 + Math.random() * 80);
    }
  }
}

/** The clients of one caller. */
export interface Callers {
  catalog: Client<typeof CatalogService>;
  customers: Client<typeof CustomerService>;
  licenses: Client<typeof LicensingService>;
  usage: Client<typeof UsageMeteringService>;
  validation: Client<typeof ValidationService>;
}

export function callersOver(transport: Transport): Callers {
  return {
    catalog: createClient(CatalogService, transport),
    customers: createClient(CustomerService, transport),
    licenses: createClient(LicensingService, transport),
    usage: createClient(UsageMeteringService, transport),
    validation: createClient(ValidationService, transport),
  };
}

/** Creates what licenses need, insisting on each: product `p` with feature `f` and plan `basic`. */
export async function prepare({ catalog }: Callers, journal: Journal): Promise<void> {
  await insist(journal, () => catalog.createProduct({ requestId: "p", product: "p", name: "P" }));
  await insist(journal, () => catalog.createFeature({ requestId: "f", product: "p", feature: "f", name: "F" }));
  const terms = { type: LicenseType.STANDARD, features: ["f"] };
  const plan = { requestId: "basic", product: "p", plan: "basic", name: "Basic", terms };
  await insist(journal, () => catalog.createPlan(plan));
}

/** Creates a customer and provisions its license, insisting on each. */
export async function provisionOne(callers: Callers, journal: Journal, customerId: string): Promise<void> {
  const { customers, licenses } = callers;
  await insist(journal, () => customers.createCustomer({ requestId: `c-${customerId}`, customerId, name: customerId }));
  const request = { requestId: `l-${customerId}`, customerId, product: "p", plan: "basic" };
  const { license } = await insist(journal, () => licenses.provisionLicense(request));
  journal.provisioned.set(customerId, license?.licenseId ?? "");
}

/** Tracks ten events, each as its own call or all as a batch, and repeats some that were acknowledged. */
export async function trackTen(
  { usage }: Callers,
  journal: Journal,
  random: () => number,
  first: number,
  occurredAt: Date,
): Promise<void> {
  const events = Array.from({ length: BATCH }, (_, index) => ({
    id: `e-${first + index}`,
    source: "crash",
    customerId: `usage-${first % CUSTOMERS}`,
    metric: METRIC,
    quantity: "1",
    occurredAt: timestampFromDate(occurredAt),
  }));
  const single = random() < 0.3;
  const send = async () => {
    if (single) await Promise.all(events.map((event) => insist(journal, () => usage.trackUsage({ event }))));
    else await insist(journal, () => usage.trackUsageBatch({ events }));
  };
  await send();
  for (const { id } of events) journal.tracked.add(id);
  if (random() < 0.25) await send();
}

/** How many events of the workload are counted by now. */
export async function countedEvents({ usage }: Callers, journal: Journal, occurredAt: Date): Promise<bigint> {
  let events = 0n;
  for (let customer = 0; customer < CUSTOMERS; customer++) {
    const request = { customerId: `usage-${customer}`, metric: METRIC, startTime: timestampFromDate(occurredAt) };
    const { totals } = await insist(journal, () => usage.getUsageStats(request));
    events += totals.reduce((sum, total) => sum + total.events, 0n);
  }
  return events;
}
