import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodUnary,
  type Message,
  type MessageInitShape,
  toJsonString,
} from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { ActivationService } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { BulkFormat, BulkKind, BulkOperationStatus } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { type AddOnTermsSchema, KeyFormat } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { InstanceType } from "@licet/contracts/licet/licensing/v1/seat_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import {
  ValidationService,
  WatchEntitlementsResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import { readPolicy } from "@licet/platform/rpc/call";
import { until } from "@licet/platform/testing/until";
import { everyMethod } from "./every-service.ts";
import { startLicet, type TestLicet } from "./licet.ts";

/** In every text that the victim's rows hold; whoever reads it elsewhere has broken out. */
const mark = "marked-as-the-victims";

let licet: TestLicet;
/** What belongs to the victim `alpha`, by the name of the field that asks for it. */
let ids: Readonly<Record<string, unknown>>;
/** Ids of another kind that fields of KeyService ask for by the same name. */
let licenseKeyIds: Readonly<Record<string, unknown>>;

beforeAll(async () => {
  licet = await startLicet({ seed: true });
  ids = await furnish(licet.as("tradsys", "admin"));
  licenseKeyIds = { keyId: (ids.key as { value: string }).value };
});
afterAll(() => licet.stop());

/** Gives the victim a product, plan, customer, license, license key, activation and usage that all carry the mark. */
async function furnish(transport: Transport): Promise<Readonly<Record<string, unknown>>> {
  const catalog = createClient(CatalogService, transport);
  const product = `product-${mark}`;
  const feature = `feature-${mark}`;
  const plan = `plan-${mark}`;
  const customerId = `customer-${mark}`;
  const email = `${mark}@example.com`;
  const style = { keyFormat: KeyFormat.OPAQUE, keyPrefix: "VIC" };
  await catalog.createProduct({ requestId: newId(), product, name: mark, ...style });
  await catalog.createFeature({ requestId: newId(), product, feature, name: mark });
  const terms = {
    type: 2,
    features: [feature],
    usagePrices: [{ metric: "m", unitPrice: { currency: "USD", decimal: "1" } }],
  };
  await catalog.createPlan({ requestId: newId(), product, plan, name: mark, terms });
  const addOn = `add-on-${mark}`;
  await catalog.createAddOn({ requestId: newId(), product, addOn, name: mark, terms: addOnTerms });
  const customers = createClient(CustomerService, transport);
  await customers.createCustomer({ requestId: newId(), customerId, name: mark, email });
  const licensing = createClient(LicensingService, transport);
  const { license, key, keySecret } = await licensing.provisionLicense({
    requestId: newId(),
    customerId,
    product,
    plan,
    addOns: [{ addOn, quantity: 1 }],
    key: { case: "issueKey", value: true },
  });
  const { activation } = await createClient(ActivationService, transport).activateInstance({
    requestId: newId(),
    key: keySecret,
    product,
    instance: { type: InstanceType.DEPLOYMENT, id: `deployment-${mark}` },
  });
  const usage = createClient(UsageMeteringService, transport);
  const event = {
    id: `event-${mark}`,
    customerId,
    feature,
    metric: "m",
    quantity: "7",
    licenseId: license?.licenseId ?? "",
  };
  await usage.trackUsage({ event });
  await until(
    "the victim's usage is counted",
    async () => (await usage.getUsageStats({ customerId })).totals.length > 0,
  );
  await usage.trackUsage({ event: { ...event, quantity: "8" } });
  await until(
    "the contradiction is in quarantine",
    async () => (await usage.listQuarantinedEvents({})).events.length > 0,
  );
  const bulk = createClient(BulkService, transport);
  const importId = `import-${mark}`;
  const kinds = { kind: BulkKind.CUSTOMERS, format: BulkFormat.CSV };
  await bulk.startImport({ requestId: newId(), importId, ...kinds });
  // No number: the error quotes it.
  const data = Buffer.from(`customer_id,employee_count\nx,${mark}\n`);
  await bulk.importChunk({ importId, offset: 0n, data });
  const selection = { product, licenseIds: [license?.licenseId as string] };
  const { operation } = await licensing.migrateLicenses({
    requestId: newId(),
    selection,
    plan,
    planVersion: (await catalog.publishPlanVersion({ requestId: newId(), product, plan, terms })).plan?.version ?? 0,
    dryRun: true,
    reason: mark,
  });
  const operationId = operation?.operationId ?? "";
  await until("the victim's migration was tried", async () => {
    const { operation } = await bulk.getBulkOperation({ operationId });
    return operation?.status === BulkOperationStatus.COMPLETED;
  });
  const { apiKeys } = await createClient(TenantService, transport).listApiKeys({});
  return {
    product,
    feature,
    plan,
    addOn,
    customerId,
    email,
    event,
    events: [event],
    eventId: event.id,
    quantity: 7n,
    terms,
    metric: "m",
    licenseId: license?.licenseId,
    licenseIds: [license?.licenseId],
    activationId: activation?.activationId,
    key: { case: "keyId", value: key?.keyId },
    importId,
    ...kinds,
    data,
    selection,
    operationId,
    change: { case: "suspend", value: {} },
    kid: "x".repeat(43),
    reason: mark,
    keyId: apiKeys[0]?.keyId,
    tenantId: "tradsys",
    name: "intruder",
    role: 3,
    holder: { case: "customerId", value: customerId },
    toCustomerId: customerId,
    updateMask: { paths: ["metadata"] },
    end: { case: "termFrom", value: 1 },
    termDays: 0,
    days: 7,
  };
}

/** A request that asks for the victim's things in every field that can name one. */
function intrusive(schema: DescMessage, own: Readonly<Record<string, unknown>>): Message {
  const init: Record<string, unknown> = {};
  for (const field of schema.fields) {
    const name = field.oneof?.localName ?? field.localName;
    if (name === "requestId") init[name] = newId();
    else if (name in own) init[name] = own[name];
  }
  return create(schema, init);
}

/** Methods by which a tenant's key reaches a tenant's things, found in the contracts. What streams show has tests of its own. */
const reaching = everyMethod.filter(
  ([, method]) => method.methodKind === "unary" && !["mesh", "public"].includes(readPolicy(method).scope ?? ""),
);

const addOnTerms: MessageInitShape<typeof AddOnTermsSchema> = { offers: [{ pricing: { case: "free", value: true } }] };

/** What fields mean here that ask for something else elsewhere by the same name. */
function meantBy(method: DescMethod): Readonly<Record<string, unknown>> {
  if (method.parent === KeyService) return licenseKeyIds;
  if (method.parent === ValidationService) {
    const { customerId, feature } = ids;
    return { features: [feature], questions: [{ customerId, feature }] };
  }
  if (method.parent !== CatalogService) return {};
  // A plan for one customer needs that customer, which whoever creates does not have yet.
  return {
    updateMask: { paths: ["name"] },
    ...(method.name === "CreatePlan" && { customerId: "" }),
    ...(method.name.includes("AddOn") && { terms: addOnTerms }),
  };
}

/** Calls a method as whoever owns the channel and returns the answer as JSON, with the content of its bytes. */
async function call(transport: Transport, method: DescMethod): Promise<string> {
  const request = intrusive(method.input, { ...ids, ...meantBy(method) });
  const { message } = await transport.unary(method as DescMethodUnary, undefined, undefined, undefined, request);
  const json = toJsonString(method.output, message);
  return json.replaceAll(/[\w+/=-]{100,}/g, (base64) => Buffer.from(base64, "base64").toString());
}

/** An answer may repeat the customer and the feature that it was asked about. */
function withoutEcho(answer: string): string {
  return answer.replaceAll(String(ids.customerId), "").replaceAll(String(ids.feature), "");
}

/** Everything that the victim has, as the database holds it. */
const victimsRows = async () => {
  const rows: unknown[] = [];
  for (const [database, tables] of [
    [
      "licensing",
      [
        "api_key",
        "product",
        "feature",
        "plan",
        "plan_version",
        "add_on",
        "add_on_version",
        "customer",
        "license",
        "license_history",
        "license_key",
        "keyed_license",
        "license_seats",
        "activation",
        "import",
        "import_error",
        "bulk_operation",
        "bulk_result",
        "event",
      ],
    ],
    ["metering", ["usage_event", "usage_hourly"]],
  ] as const) {
    for (const table of tables) {
      const where = "WHERE tenant_id = 'tradsys'";
      rows.push(
        await licet.sql(database, `SELECT to_jsonb(t) AS row FROM ${table} t ${where} ORDER BY to_jsonb(t)::text`),
      );
    }
  }
  return rows;
};

/**
 * Fields of requests that name nothing which could be another tenant's, or only together with one that is asked by: codes of
 * features, add-ons and versions are those of the product, plan or license beside them, a consistency token that of the customer.
 */
const namingNothing: ReadonlySet<string> = new Set(
  [
    "requestId etag pageSize pageToken updateMask metadata context configuration features addOns atLeast version planVersion",
    "autoRenew atEnd billingCycle currency delaySeconds domain employeeCount failMode graceDays graceUntil granularity",
    "industry keyFormat keyPrefix lastSeenBefore limits offlineDays onBehalfOf overlapSeconds reduceOnly retired scopes seatPolicy seats standing",
    "startTime endTime periodStart periodEnd validFrom validUntil expiresAt ttlSeconds",
    "dryRun onExisting offset final failedOnly keepSeats",
    "action timestamp consume explain",
  ].flatMap((names) => names.split(" ")),
);

test("every field of every request is asked by, or is known to name nothing", () => {
  const unknown = reaching.flatMap(([name, method]) =>
    method.input.fields
      .map((field) => field.oneof?.localName ?? field.localName)
      .filter((field) => !(field in { ...ids, ...meantBy(method) }) && !namingNothing.has(field))
      .map((field) => `${name}: ${field}`),
  );
  expect(unknown).toEqual([]);
});

describe("with another tenant's key", () => {
  // Whoever creates something under the victim's codes has things of its own by these names, and may see them.
  const intruders = { creating: "wprocket", other: "rankmath" };

  test.each(reaching)("%s shows and changes nothing of the victim", async (_name, method) => {
    const before = await victimsRows();
    const creates = /^(Create|Provision|Publish|Start|Track)/.test(method.name);
    const intruder = licet.as(creates ? intruders.creating : intruders.other, "admin");
    const answer = await call(intruder, method).catch((error: unknown) => error);
    if (answer instanceof ServiceError) expect(["NOT_FOUND", "PERMISSION_DENIED"]).toContain(answer.code);
    else if (isRead(method.name)) expect(withoutEcho(String(answer))).not.toContain(mark);
    else expect(creates).toBe(true);
    expect(await victimsRows()).toEqual(before);
  });

  test("a decision about the victim's customer says that there is none", async () => {
    const validation = createClient(ValidationService, licet.as("rankmath", "service"));
    const decision = await validation.validateFeature({
      customerId: String(ids.customerId),
      feature: String(ids.feature),
    });
    expect(decision).toMatchObject({
      valid: false,
      version: 0n,
      violations: [`Customer "${ids.customerId}" is unknown.`],
    });
  });

  test("a watch shows nothing of the victim, whose own shows it", async () => {
    const customerIds = [String(ids.customerId)];
    for (const watched of [[], customerIds]) {
      expect(withoutEcho(await watchedFirst("rankmath", watched))).not.toContain(mark);
      expect(withoutEcho(await watchedFirst("tradsys", watched))).toContain(mark);
    }
  });
});

/** What a watch of a tenant's is told first, as JSON. */
async function watchedFirst(tenant: string, customerIds: string[]): Promise<string> {
  const validation = createClient(ValidationService, licet.as(tenant, "service"));
  const told: string[] = [];
  for await (const message of validation.watchEntitlements({ customerIds })) {
    told.push(toJsonString(WatchEntitlementsResponseSchema, message));
    if (message.content.case === "synchronized") break;
  }
  return told.join("\n");
}

test("the victim itself is shown all of it: the requests above do ask for something", async () => {
  const victim = licet.as("tradsys", "admin");
  for (const [name, method] of reaching) {
    if (!isRead(method.name) || method.name === "ListTenants") continue;
    const told = withoutEcho(await call(victim, method));
    expect([name, told]).toEqual([name, expect.stringMatching(`${mark}|"quantity":"7"|"first admin key"`)]);
  }
});

function isRead(method: string): boolean {
  return /^(Get|List|Preview|Validate|BatchValidate|CheckFeatures)/.test(method);
}
