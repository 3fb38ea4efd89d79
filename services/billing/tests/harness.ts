import { create, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { Cycle, type PlanSchema, type PlanTermsSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import type { LicenseSchema } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { UsageGranularity, UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import { createCredentials } from "@licet/platform/credentials";
import { platformError, ServiceError } from "@licet/platform/errors";
import { createLogger } from "@licet/platform/logging";
import type { Call } from "@licet/platform/rpc/call";
import { type Handlers, implement, type ServiceBinding } from "@licet/platform/rpc/handlers";
import { createLocalTransport } from "@licet/platform/rpc/local";
import { createPipeline } from "@licet/platform/rpc/pipeline";
import { defaults } from "../src/config.ts";
import { type Billing, createBilling } from "../src/service.ts";

export type WireLicense = MessageInitShape<typeof LicenseSchema>;
type WireTerms = MessageInitShape<typeof PlanTermsSchema>;
type WireEvent = MessageInitShape<typeof UsageEventSchema>;

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const meshKey = "mesh-key-of-the-test";
const logger = createLogger({ level: "silent", name: "test" });

/** How many items the fakes give at most in one page, whatever is asked for. */
const FAKE_PAGE = 2;

/** Licensing and usage-metering with what a test puts into them; all of it is the tenant `tradsys`'. */
export interface Fakes {
  /** By customer, oldest first. */
  readonly licenses: Map<string, WireLicense[]>;
  /** By `<product>/<plan>/<version>`. */
  readonly plans: Map<string, WireTerms>;
  readonly events: WireEvent[];
  /** Each call that was answered: `<tenant> <method>`. */
  readonly asked: string[];
  /** Runs before each answer; throws to make a service fail. */
  before: (call: Call) => void | Promise<void>;
}

/** The billing service in the real pipeline, beside the fakes in another one, with a fake clock. */
export interface Harness {
  readonly fakes: Fakes;
  readonly billing: Billing;
  readonly clock: { now: Date };
  /** A client of a tenant that may read invoices. */
  client(tenant?: string, scopes?: readonly string[]): Client<typeof InvoiceService>;
}

export function createHarness(): Harness {
  const fakes: Fakes = { licenses: new Map(), plans: new Map(), events: [], asked: [], before: () => undefined };
  const mesh = meshTransport(fakes);
  const clock = { now: new Date("2026-11-25T12:30:00Z") };
  const billing = createBilling(defaults, { licensing: mesh, metering: mesh, now: () => clock.now });
  billing.start();
  return {
    fakes,
    billing,
    clock,
    client(tenant = "tradsys", scopes = ["invoices:read"]) {
      const credential = { id: "key", tenant, role: "viewer", scopes: new Set(scopes), kind: "api_key" } as const;
      const authenticate = async () => credential;
      const pipeline = createPipeline({ authenticate, maxConcurrent: 10, maxStreams: 1, logger });
      return createClient(InvoiceService, createLocalTransport({ bindings: billing.bindings, pipeline }));
    },
  };
}

/** Reaches the fakes with the mesh's key, which is checked as in real life. */
function meshTransport(fakes: Fakes): Transport {
  const credentials = createCredentials({
    resolve: async () => undefined,
    mesh: { key: meshKey, scopes: ["customers:read", "licenses:read", "catalog:read", "usage:read"] },
    now: Date.now,
  });
  const authenticate = (headers: Headers) => credentials.authenticate(headers);
  const pipeline = createPipeline({ authenticate, maxConcurrent: 100, maxStreams: 1, logger });
  const headers = { authorization: `Bearer ${meshKey}` };
  return createLocalTransport({ bindings: fakeServices(fakes), pipeline, headers });
}

function fakeServices(fakes: Fakes): ServiceBinding[] {
  const asked = async (call: Call): Promise<void> => {
    await fakes.before(call);
    fakes.asked.push(`${call.tenant} ${call.method.name}`);
  };
  const licensesOf = (call: Call, customerId: string) =>
    call.tenant === "tradsys" ? fakes.licenses.get(customerId) : undefined;
  return [
    partly(CustomerService, {
      async getCustomer(_ctx, call, { customerId }) {
        await asked(call);
        if (licensesOf(call, customerId) === undefined) throw notFound("CUSTOMER_NOT_FOUND");
        return { customer: { customerId } };
      },
    }),
    partly(LicensingService, {
      async listLicenses(_ctx, call, { holder, pageSize, pageToken }) {
        await asked(call);
        const all = licensesOf(call, holder.value ?? "") ?? [];
        const { items, nextPageToken } = page(all, pageSize, pageToken);
        return { licenses: items, nextPageToken };
      },
    }),
    partly(CatalogService, {
      async getPlan(_ctx, call, { product, plan, version }) {
        await asked(call);
        const terms = fakes.plans.get(`${product}/${plan}/${version}`);
        if (terms === undefined) throw notFound("PLAN_NOT_FOUND");
        return {
          plan: { product, plan, name: `The ${plan}`, version, terms } satisfies MessageInitShape<typeof PlanSchema>,
        };
      },
    }),
    partly(UsageMeteringService, {
      async getUsageStats(_ctx, call, request) {
        await asked(call);
        if (request.granularity !== UsageGranularity.DAY) throw new Error("the fake sums by day only");
        const { items, nextPageToken } = page(dailySums(fakes.events, request), request.pageSize, request.pageToken);
        return { buckets: items, nextPageToken };
      },
    }),
  ];
}

type StatsRequest = Parameters<Handlers<typeof UsageMeteringService, undefined>["getUsageStats"]>[2];

/** As the contract of GetUsageStats has it: the period in whole hours, sums by day and license. */
function dailySums(events: readonly WireEvent[], request: StatsRequest) {
  const { customerId, metric, startTime, endTime } = request;
  if (startTime === undefined || endTime === undefined) throw new Error("billing names the period");
  const startMs = Math.floor(timestampDate(startTime).getTime() / HOUR_MS) * HOUR_MS;
  const endMs = Math.ceil(timestampDate(endTime).getTime() / HOUR_MS) * HOUR_MS;
  const sums = new Map<string, { licenseId: string; startTime: ReturnType<typeof timestampFromDate>; sum: number }>();
  for (const event of events.map((init) => create(UsageEventSchema, init))) {
    const atMs = event.occurredAt ? timestampDate(event.occurredAt).getTime() : 0;
    const matches = event.customerId === customerId && event.metric === metric;
    if (!matches || atMs < startMs || atMs >= endMs) continue;
    const day = new Date(Math.floor(atMs / DAY_MS) * DAY_MS);
    const key = `${day.toISOString()} ${event.licenseId}`;
    const bucket = sums.get(key) ?? { licenseId: event.licenseId, startTime: timestampFromDate(day), sum: 0 };
    bucket.sum += Number(event.quantity);
    sums.set(key, bucket);
  }
  return [...sums.values()].map(({ sum, ...bucket }) => ({ ...bucket, metric, quantity: `${sum}` }));
}

function page<T>(all: readonly T[], pageSize: number, pageToken: string): { items: T[]; nextPageToken: string } {
  const from = Number(pageToken || "0");
  const to = from + Math.min(pageSize, FAKE_PAGE);
  return { items: all.slice(from, to), nextPageToken: to < all.length ? `${to}` : "" };
}

/** A service of which only some methods work. */
function partly<S extends DescService>(service: S, some: Partial<Handlers<S, undefined>>): ServiceBinding {
  const refuse = (): never => {
    throw platformError("METHOD_UNKNOWN", "the fake does not do this");
  };
  const rest = Object.fromEntries(service.methods.map(({ localName }) => [localName, refuse]));
  // The compiler can't see that the methods of a service, each refused or overridden, are all of its methods.
  return implement(service, undefined, { ...rest, ...some } as Handlers<S, undefined>);
}

function notFound(reason: string): ServiceError {
  return new ServiceError({ code: "NOT_FOUND", reason, message: "there is none" });
}

/** The terms of the demo's standard plan, as version 1 of `trading`'s `standard`. */
export const standard = {
  price: { currency: "USD", amountMinor: 2_500_000n },
  priceCycle: Cycle.YEAR,
  usagePrices: [
    { metric: "exchange_requests", includedPerMonth: 500n, unitPrice: { currency: "USD", decimal: "0.0125" } },
  ],
} satisfies WireTerms;

/** The id of the n-th license of a test. */
export function licenseId(number: number): string {
  return `0193abcd-0000-7000-8000-${String(number).padStart(12, "0")}`;
}

/** A license of that plan from 1 November 2026 for a year, billed monthly. */
export function license(overrides: WireLicense = {}): WireLicense {
  return {
    licenseId: licenseId(1),
    product: "trading",
    plan: "standard",
    planVersion: 1,
    validFrom: time("2026-11-01T00:00:00Z"),
    validUntil: time("2027-11-01T00:00:00Z"),
    billingCycle: Cycle.MONTH,
    ...overrides,
  };
}

/** So many uses of `exchange_requests` by `nile-brokers`. */
export function requests(quantity: number, occurredAt: string, overrides: WireEvent = {}): WireEvent {
  return {
    customerId: "nile-brokers",
    metric: "exchange_requests",
    quantity: `${quantity}`,
    occurredAt: time(occurredAt),
    ...overrides,
  };
}

/** A timestamp by its ISO form. */
export function time(iso: string) {
  return timestampFromDate(new Date(iso));
}
