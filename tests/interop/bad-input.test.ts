import type { JsonObject } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { until } from "@licet/platform/testing/until";
import { startLicet, type TestLicet } from "../mesh/licet.ts";
import { connectJson } from "./connect-json.ts";
import type { RawClient, Refusal } from "./outcome.ts";
import { type ReflectingClient, reflectingClient } from "./reflecting.ts";

const validate = "licet.validation.v1.ValidationService/ValidateFeature";
const provision = "licet.licensing.v1.LicensingService/ProvisionLicense";
const getLicense = "licet.licensing.v1.LicensingService/GetLicense";
const createCustomer = "licet.licensing.v1.CustomerService/CreateCustomer";
const track = "licet.metering.v1.UsageMeteringService/TrackUsage";
const trackBatch = "licet.metering.v1.UsageMeteringService/TrackUsageBatch";

const question = { customer_id: "cairo-capital", feature: "egx_access" };
const license = { request_id: "bad-1", customer_id: "nile-brokers", product: "trading", plan: "standard" };
const event = { id: "bad-1", customer_id: "nile-brokers", metric: "orders", quantity: "1" };
const inAnHour = new Date(Date.now() + 3_600_000).toISOString();
const longContext = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`key-${i}`, "x".repeat(1_200)]));

let licet: TestLicet;
let grpc: ReflectingClient;
let before: unknown;

/** How much there is of everything that a request can cause: rows, and records ever appended to the log. */
async function countAll() {
  const rows = async (database: string, tables: readonly string[]) => {
    const counts = tables.map((table) => `(SELECT count(*) FROM ${table}) AS ${table}`);
    return licet.sql(database, `SELECT ${counts.join(", ")}`);
  };
  return {
    licensing: await rows("licensing", ["customer", "license", "product", "plan", "event", "idempotency"]),
    metering: await rows("metering", ["usage_event", "usage_hourly"]),
    appended: await licet.sql("bus", "SELECT sum(next_offset) AS records FROM partition"),
  };
}

/** Waits until what earlier writes set off has arrived: history is published, usage is counted, and told as levels. */
async function settled(): Promise<void> {
  const one = async (database: string, query: string) => {
    const [row] = await licet.sql<{ value: string | null }>(database, query);
    return row?.value ?? "0";
  };
  await until("nothing is on its way any more", async () => {
    const pending = await one("licensing", "SELECT count(*) AS value FROM outbox_pending");
    const counted = await one("metering", "SELECT sum(next_offset) AS value FROM consumer_offset");
    const tracked = "SELECT sum(next_offset) AS value FROM partition WHERE topic = 'licet.usage.v1'";
    const changed = await one("metering", "SELECT count(*) AS value FROM usage_change");
    const untold = await one("metering", "SELECT count(*) AS value FROM usage_level WHERE pending");
    return [pending, changed, untold].every((count) => count === "0") && counted === (await one("bus", tracked));
  });
}

beforeAll(async () => {
  licet = await startLicet({ seed: true });
  grpc = reflectingClient(new URL(licet.run.grpcUrl).host);
  const customer = { request_id: "used-before", customer_id: "first", name: "First" };
  expect(await grpc.call(keyOf("admin"), createCustomer, customer)).toHaveProperty("reply");
  await settled();
  before = await countAll();
});

afterAll(async () => {
  grpc?.close();
  await licet?.stop();
});

const keyOf = (role: string) => licet.run.apiKeys.tradsys?.[role];

const clients: [string, () => RawClient][] = [
  ["gRPC", () => grpc],
  ["Connect JSON", () => connectJson(licet.run.webUrl)],
];

describe.each(clients)("%s refuses", (_name, client) => {
  const refused = async (method: string, body: JsonObject, key = keyOf("admin")): Promise<Refusal> => {
    const outcome = await client().call(key, method, body);
    if ("reply" in outcome) throw new Error(`accepted: ${JSON.stringify(outcome.reply)}`);
    return outcome.refusal;
  };

  test("a call without a key, with a wrong one, and without the scope", async () => {
    const without = await client().call(undefined, validate, question);
    expect(without).toMatchObject({ refusal: { code: "UNAUTHENTICATED", reason: "CREDENTIAL_MISSING" } });
    const wrong = { code: "UNAUTHENTICATED", reason: "CREDENTIAL_INVALID" };
    expect(await refused(validate, question, "wrong")).toMatchObject(wrong);
    expect(await refused(validate, question, `lct_${"0".repeat(16)}.${"A".repeat(43)}`)).toMatchObject(wrong);
    const powerless = await refused(provision, license, keyOf("service"));
    expect(powerless).toMatchObject({ code: "PERMISSION_DENIED", reason: "SCOPE_MISSING" });
    expect(powerless.message).toContain("licenses:write");
  });

  test("what is no message", async () => {
    const bytes = client() === grpc ? Buffer.from([0xff, 0xff]) : Buffer.from('{"customer_id":');
    for (const method of [validate, provision, track]) {
      const outcome = await client().callWithBytes(keyOf("admin"), method, bytes);
      expect(outcome).toMatchObject({ refusal: { code: "INVALID_ARGUMENT", reason: "MALFORMED_MESSAGE" } });
    }
  });

  test("a message too large", async () => {
    const tooLarge = { code: "INVALID_ARGUMENT", reason: "MESSAGE_TOO_LARGE" };
    expect(await refused(validate, { ...question, context: longContext })).toMatchObject(tooLarge);
    const events = Array.from({ length: 900 }, (_, i) => ({
      ...event,
      id: `${i}`,
      dimensions: { a: "x".repeat(1_200) },
    }));
    expect(await refused(trackBatch, { events })).toMatchObject(tooLarge);
  });

  test.each<[string, string, JsonObject, string[]]>([
    ["an unknown enum value", provision, { ...license, billing_cycle: 99 }, ["billing_cycle"]],
    ["a negative quantity", track, { event: { ...event, quantity: "-1" } }, ["event.quantity"]],
    ["a quantity that is no number", track, { event: { ...event, quantity: "much" } }, ["event.quantity"]],
    ["a time in the future", track, { event: { ...event, occurred_at: inAnHour } }, ["event.occurred_at"]],
    [
      "a time in the future, inside a batch",
      trackBatch,
      { events: [event, { ...event, id: "bad-2", occurred_at: inAnHour }] },
      ["events[1].occurred_at"],
    ],
    ["a batch of nothing", trackBatch, { events: [] }, ["events"]],
    ["an empty customer_id", validate, { ...question, customer_id: "" }, ["customer_id"]],
    ["an empty feature", validate, { ...question, feature: "" }, ["feature"]],
    ["an empty request_id", provision, { ...license, request_id: "" }, ["request_id"]],
    ["an empty event id", track, { event: { ...event, id: "" } }, ["event.id"]],
    ["no event", track, {}, ["event"]],
    [
      "several empty ids at once",
      provision,
      { ...license, request_id: "", customer_id: "" },
      ["request_id", "customer_id"],
    ],
    ["an id of another form", getLicense, { license_id: "seven" }, ["license_id"]],
    ["a character that can't be stored", createCustomer, { request_id: "bad-1", name: "a\u0000b" }, ["name"]],
  ])("%s, naming the field", async (_what, method, body, fields) => {
    const refusal = await refused(method, body);
    expect(refusal).toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_FIELD", fields });
    for (const field of fields) expect(refusal.message).toContain(field);
  });

  test.each<[string, string, JsonObject, string]>([
    ["plan", provision, { ...license, plan: "platinum" }, "PLAN_NOT_FOUND"],
    ["product", provision, { ...license, product: "gold" }, "PRODUCT_NOT_FOUND"],
    ["customer", provision, { ...license, customer_id: "nobody" }, "CUSTOMER_NOT_FOUND"],
    ["license", getLicense, { license_id: "01930000-0000-7000-8000-00000000ffff" }, "LICENSE_NOT_FOUND"],
  ])("an unknown %s, with its reason", async (_what, method, body, reason) => {
    expect(await refused(method, body)).toMatchObject({ code: "NOT_FOUND", reason });
  });

  test("a request_id that was used with another body", async () => {
    const another = { request_id: "used-before", customer_id: "second", name: "Second" };
    expect(await refused(createCustomer, another)).toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "REQUEST_ID_REUSED",
      fields: ["request_id"],
    });
  });
});

describe("JSON", () => {
  const post = (text: string) =>
    connectJson(licet.run.webUrl).callWithBytes(keyOf("admin"), provision, Buffer.from(text));

  test("with an unknown enum name is refused, naming the field", async () => {
    expect(await post(JSON.stringify({ ...license, billing_cycle: "CYCLE_CENTURY" }))).toMatchObject({
      refusal: { code: "INVALID_ARGUMENT", reason: "INVALID_FIELD", fields: ["billing_cycle"] },
    });
  });

  test("with a misspelt field is refused, naming it", async () => {
    expect(await post(JSON.stringify({ ...license, billing_cicle: "CYCLE_MONTH" }))).toMatchObject({
      refusal: { code: "INVALID_ARGUMENT", message: expect.stringContaining("billing_cicle") },
    });
  });
});

test("of all that was refused, nothing was written", async () => {
  await settled();
  expect(await countAll()).toEqual(before);
});
