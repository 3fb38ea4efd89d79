import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import {
  BulkFormat,
  BulkKind,
  type Import,
  ImportStatus,
  OnExisting,
} from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { Cycle, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { inTenant } from "@licet/platform/database/database";
import { roles } from "@licet/platform/database/roles";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { until } from "@licet/platform/testing/until";
import { sql } from "kysely";
import { lockCustomer } from "../src/store/customers.ts";
import { type Clients, type Harness, seedTenant, startHarness, untilOneWaits } from "./harness.ts";

let harness: Harness;
let brand: Clients;
let tenants = 0;

beforeAll(async () => {
  harness = await startHarness();
  brand = await seedTenant(harness, "tradsys");
});
afterAll(() => harness.stop());

/** A tenant of its own with the product, plan and customer of the harness. */
async function newTenant() {
  const tenant = `brand-${tenants++}`;
  return { tenant, ...(await seedTenant(harness, tenant)) };
}

interface Settings {
  readonly kind?: BulkKind;
  readonly format?: BulkFormat;
  readonly dryRun?: boolean;
  readonly onExisting?: OnExisting;
}

/** Starts an import of customers as CSV where nothing else is said. Returns its id. */
async function begin(clients: Clients, settings: Settings = {}, importId = newId()): Promise<string> {
  const wanted = { kind: BulkKind.CUSTOMERS, format: BulkFormat.CSV, ...settings };
  await clients.bulk.startImport({ requestId: newId(), importId, ...wanted });
  return importId;
}

/** Sends a file in pieces that end at the given places, as a client does: goes on where the answer says. */
async function send(clients: Clients, importId: string, file: Uint8Array, cuts: readonly number[] = []) {
  const ends = [...cuts, file.length];
  let state: Import | undefined;
  let offset = 0;
  for (let index = 0; index < ends.length; ) {
    const end = ends[index] as number;
    const chunk = { importId, offset: BigInt(offset), data: file.subarray(offset, end), final: end === file.length };
    state = (await clients.bulk.importChunk(chunk).catch((error: unknown) => askAgain(error, clients, importId)))
      .import;
    if (state?.status !== ImportStatus.RUNNING) break;
    offset = Number(state.nextOffset);
    if (offset >= end) index++;
  }
  if (!state) throw new Error("the reply has no import");
  return state;
}

/** A call's time can be over before its first batch is, and others can be in the way: the import tells how far it is. */
function askAgain(error: unknown, clients: Clients, importId: string) {
  if (!(error instanceof ServiceError) || !["DEADLINE_EXCEEDED", "ABORTED"].includes(error.code)) throw error;
  return clients.bulk.getImport({ importId });
}

async function take(clients: Clients, text: string, settings: Settings = {}) {
  return send(clients, await begin(clients, settings), Buffer.from(text));
}

const lines = (...rows: string[]) => `${rows.join("\r\n")}\r\n`;
const header = "customer_id,name,email,employee_count";
const errorsOf = ({ firstErrors }: Import) =>
  firstErrors.map(({ line, field, reason }) => `${line} ${field} ${reason}`);

/** Every row of a table that belongs to a tenant, as the database's owner sees it. */
function rowsOf(table: string, tenant: string): Promise<Record<string, unknown>[]> {
  return harness.database.asSuperuser(async (client) => {
    const { rows } = await client.query(`SELECT * FROM ${table} WHERE tenant_id = $1 ORDER BY 1, 2, 3`, [tenant]);
    return rows;
  });
}

describe("customers", () => {
  test("CSV: quotes, line feeds in cells, BOM, an own order of columns, no end of the last line", async () => {
    const clients = await newTenant();
    const text = `\uFEFFname,customer_id,employee_count\r\n"Cairo ""Capital"", Ltd",cairo,250\r\n"Two\nlines",two,\n\nLast,last,7`;
    const state = await take(clients, text);
    expect(state).toMatchObject({ status: ImportStatus.COMPLETED, rows: 3n, created: 3n, failed: 0n });
    const { customers } = await clients.customers.listCustomers({});
    expect(customers.map(({ customerId, name, employeeCount }) => [customerId, name, employeeCount])).toEqual([
      ["cairo", 'Cairo "Capital", Ltd', 250],
      ["last", "Last", 7],
      ["nile", "Nile Brokers", 0],
      ["two", "Two\nlines", 0],
    ]);
  });

  test("JSON lines", async () => {
    const clients = await newTenant();
    const text = '{"customer_id":"a","name":"A","email":"a@x.example"}\n{"customerId":"b","name":"B"}\n';
    expect(await take(clients, text, { format: BulkFormat.JSONL })).toMatchObject({ created: 2n, rows: 2n });
    const { customer } = await clients.customers.getCustomer({ customerId: "a" });
    expect(customer).toMatchObject({ name: "A", email: "a@x.example" });
  });

  test("each is told as CreateCustomer tells it, by whom", async () => {
    const clients = await newTenant();
    await take(clients, lines(header, "a,A,,1", "b,B,,2"));
    const { customer } = await clients.customers.createCustomer({ requestId: newId(), customerId: "c", name: "C" });
    const told = async (customerId: string) => {
      const { entries } = await clients.licenses.listLicenseEvents({
        holder: { case: "customerId", value: customerId },
      });
      return entries.map(({ cause, version, actor, effectiveAt }) => ({ cause, version, actor, effectiveAt }));
    };
    expect(await told("a")).toEqual(await told(customer?.customerId ?? ""));
    expect((await told("b")).map(({ cause }) => cause)).toEqual([LicenseChangeCause.CUSTOMER_CREATED]);
  });

  test("wrong rows are told by line and field; the others are taken", async () => {
    const clients = await newTenant();
    const text = Buffer.concat([
      Buffer.from(
        lines(
          header,
          "a,A,,1", // 2
          "b,B,not an address,1",
          '"c",C,"c@x.example\n",x', // 4 and 5
          "d,D,", // 6: a cell is missing
          ",E,,", // 7
          'f,"F""quote"x,,', // 8
          "g,G", // 9
          "nile,N,,", // 10
          `h,${"x".repeat(70_000)},,`, // 11
          "i,,,", // 12
        ),
      ),
      Buffer.from("j,", "utf8"), // 13
      Buffer.from([0xff, 0xfe]),
      Buffer.from(",,\r\nk,K\0,,\r\nz,Z,,5\r\n"), // 14, 15
    ]);
    const state = await send(clients, await begin(clients), text);
    expect(state).toMatchObject({ status: ImportStatus.COMPLETED, rows: 13n, created: 2n, failed: 11n });
    const { errors } = await clients.bulk.listImportErrors({ importId: state.importId, pageSize: 500 });
    expect(errors.map(({ line, field, reason }) => `${line} ${field} ${reason}`)).toEqual([
      "3 email INVALID_FIELD",
      "4 employee_count INVALID_FIELD",
      "6  INVALID_FIELD",
      "7 customer_id INVALID_FIELD",
      "8  INVALID_FIELD",
      "9  INVALID_FIELD",
      "10  CUSTOMER_EXISTS",
      "11  INVALID_FIELD",
      "12 name INVALID_FIELD",
      "13  INVALID_FIELD",
      "14 name INVALID_FIELD",
    ]);
    expect(errors.map(({ message }) => message)).toEqual([
      expect.stringContaining("email"),
      expect.stringContaining("uint32"),
      "the row has 3 cells where the header has 4",
      expect.stringContaining("at least 1"),
      expect.stringContaining("a quote is misplaced"),
      "the row has 2 cells where the header has 4",
      "A customer nile exists already.",
      expect.stringContaining("more than the 65536 bytes"),
      "is required: the customer is new",
      expect.stringContaining("not UTF-8"),
      "must not hold the character U+0000",
    ]);
    const { customers } = await clients.customers.listCustomers({});
    expect(customers.map(({ customerId }) => customerId)).toEqual(["a", "nile", "z"]);
  });

  test.each<[string, string | Buffer, string]>([
    ["an unknown column", "customer_id,nmae\n", 'header: names "nmae"; the columns of customers are customer_id, name'],
    ["another separator", "customer_id;name\n", "separated by commas"],
    ["a column twice", "customer_id,name,name\n", "header: names name twice"],
    ["no id", "name\n", "header: lacks customer_id"],
    ["nothing", "\n", "the file is empty"],
    ["another encoding", Buffer.from("\u{FEFF}customer_id\n", "utf16le"), "not UTF-8"],
    ["a header without end", `customer_id${",".repeat(70_000)}`, "more than the 65536 bytes"],
  ])("a file with %s is refused as a whole", async (_name, file, failure) => {
    const clients = await newTenant();
    const state = await send(clients, await begin(clients), Buffer.from(file));
    expect(state.status).toBe(ImportStatus.FAILED);
    expect(state.failure).toContain(failure);
    expect((await clients.customers.listCustomers({})).customers).toHaveLength(1);
  });

  test("what is there already: fail, skip, update", async () => {
    const clients = await newTenant();
    const text = lines("customer_id,name,email,domain", "nile,Nile,,nile.example", "x,X,x@x.example,", "x,Y,,");
    const failing = await take(clients, text);
    expect(failing).toMatchObject({ created: 1n, failed: 2n });
    expect(errorsOf(failing)).toEqual(["2  CUSTOMER_EXISTS", "4  CUSTOMER_EXISTS"]);
    expect(await take(clients, text, { onExisting: OnExisting.SKIP })).toMatchObject({ skipped: 3n, created: 0n });
    expect(await take(clients, text, { onExisting: OnExisting.UPDATE })).toMatchObject({ updated: 2n, unchanged: 1n });
    const { customer } = await clients.customers.getCustomer({ customerId: "nile" });
    expect(customer).toMatchObject({ name: "Nile", email: "", domain: "nile.example" });
    expect((await clients.customers.getCustomer({ customerId: "x" })).customer).toMatchObject({ name: "Y", email: "" });
    const { entries } = await clients.licenses.listLicenseEvents({ holder: { case: "customerId", value: "nile" } });
    expect(entries.map(({ cause }) => cause)).toEqual([
      LicenseChangeCause.CUSTOMER_CREATED,
      LicenseChangeCause.CUSTOMER_UPDATED,
    ]);
  });

  test("an update changes nothing that the file does not name", async () => {
    const clients = await newTenant();
    const text = lines("customer_id,industry", "nile,finance");
    expect(await take(clients, text, { onExisting: OnExisting.UPDATE })).toMatchObject({ updated: 1n });
    const { customer } = await clients.customers.getCustomer({ customerId: "nile" });
    expect(customer).toMatchObject({ name: "Nile Brokers", email: "Desk@Nile.example", industry: "finance" });
  });

  test("a cell that an export has guarded against formulas comes back", async () => {
    const clients = await newTenant();
    await take(clients, lines("customer_id,name,industry", "a,'=1+1,'s-Gravenhage"));
    expect((await clients.customers.getCustomer({ customerId: "a" })).customer).toMatchObject({
      name: "=1+1",
      industry: "'s-Gravenhage",
    });
  });
});

describe("licenses", () => {
  const id = (last: number) => `01930000-0000-7000-8000-0000000000${String(last).padStart(2, "0")}`;

  test("by plan, bare, suspended, cancelled at the end; each told as one provisioned", async () => {
    const clients = await newTenant();
    const text = lines(
      "license_id,customer_id,product,plan,valid_from,valid_until,seats,features,limits,metadata,status,status_reason,cancels_at,created_at",
      `${id(1)},nile,trading,standard,2026-01-01T00:00:00Z,,,,,"{""order"":""A-17""}",,,,2026-01-01T00:00:00Z`,
      `${id(2)},nile,trading,,2026-01-01T00:00:00Z,2027-01-01T00:00:00Z,-1,basic_trading egx_access,"[{""metric"":""users"",""maximum"":""5"",""window"":""LIMIT_WINDOW_GAUGE""}]",,suspended,owes,,`,
      `${id(3)},nile,trading,standard,,,7,,,,active,,2027-06-01T00:00:00Z,`,
      ",nile,trading,standard,,,,,,,revoked,fraud,,",
    );
    const state = await take(clients, text, { kind: BulkKind.LICENSES });
    expect([errorsOf(state), state.created]).toEqual([[], 4n]);
    const { license: first } = await clients.licenses.getLicense({ licenseId: id(1) });
    expect(first).toMatchObject({
      status: LicenseStatus.ACTIVE,
      planVersion: 1,
      metadata: { order: "A-17" },
      graceDays: 3,
    });
    expect(timestampDate(first?.validUntil as never)).toEqual(new Date("2027-01-01T00:00:00Z"));
    expect((await clients.licenses.getLicense({ licenseId: id(2) })).license).toMatchObject({
      status: LicenseStatus.SUSPENDED,
      statusReason: "owes",
      features: ["basic_trading", "egx_access"],
      limits: [{ metric: "users", maximum: 5n }],
    });
    expect((await clients.licenses.getLicense({ licenseId: id(3) })).license?.cancelsAt).toBeDefined();
    const { entries } = await clients.licenses.listLicenseEvents({ holder: { case: "customerId", value: "nile" } });
    expect(entries.map(({ version, cause }) => [version, cause])).toEqual([
      [1n, LicenseChangeCause.CUSTOMER_CREATED],
      ...[2n, 3n, 4n, 5n].map((version) => [version, LicenseChangeCause.PROVISIONED]),
    ]);
    // The last event says what a reader of the tables is told: it was put together in memory.
    const { snapshot } = await harness
      .as(clients.tenant, "mesh")
      .licenses.getEntitlementSnapshot({ customerId: "nile" });
    const events = await rowsOf("event", clients.tenant);
    const last = events.filter(({ stream, version }) => stream === "customer/nile" && version === "5");
    const told = fromBinary(LicenseChangedSchema, last[0]?.payload as Uint8Array).snapshot;
    expect({ ...told, issuedAt: undefined }).toEqual({ ...snapshot, issuedAt: undefined });
  });

  test.each<[string, string, string, string]>([
    ["customer", "customer_id,product,plan", "nobody,trading,standard", "2  CUSTOMER_NOT_FOUND"],
    ["product", "customer_id,product,plan", "nile,spaceship,standard", "2  PRODUCT_NOT_FOUND"],
    ["plan", "customer_id,product,plan", "nile,trading,platinum", "2  PLAN_NOT_FOUND"],
    ["version", "customer_id,product,plan,plan_version", "nile,trading,standard,9", "2  PLAN_NOT_FOUND"],
    [
      "seats of a bare one",
      "customer_id,product,valid_until",
      "nile,trading,2030-01-01T00:00:00Z",
      "2 seats INVALID_FIELD",
    ],
    ["end of a bare one", "customer_id,product,seats", "nile,trading,5", "2 valid_until INVALID_FIELD"],
    [
      "terms beside a plan",
      "customer_id,product,plan,features",
      "nile,trading,standard,a b",
      "2 features INVALID_FIELD",
    ],
    ["word", "customer_id,product,plan,status", "nile,trading,standard,frozen", "2 status INVALID_FIELD"],
    ["time", "customer_id,product,plan,valid_from", "nile,trading,standard,soon", "2 valid_from INVALID_FIELD"],
    ["JSON", "customer_id,product,plan,metadata", "nile,trading,standard,{a", "2 metadata INVALID_FIELD"],
    [
      "past",
      "customer_id,product,plan,ended_at",
      "nile,trading,standard,2026-01-01T00:00:00Z",
      "2 ended_at INVALID_FIELD",
    ],
    [
      "future",
      "customer_id,product,plan,created_at",
      "nile,trading,standard,2036-01-01T00:00:00Z",
      "2 created_at INVALID_FIELD",
    ],
    ["id", "customer_id,product,plan,license_id", "nile,trading,standard,17", "2 license_id INVALID_FIELD"],
  ])("a wrong %s", async (_name, columns, row, error) => {
    const state = await take(brand, lines(columns, row), { kind: BulkKind.LICENSES });
    expect([errorsOf(state), state.created, state.failed]).toEqual([[error], 0n, 1n]);
  });

  test("what is there already: renewed, updated, or different in what an import leaves alone", async () => {
    const clients = await newTenant();
    const columns = "license_id,customer_id,product,plan,valid_until,seats,metadata";
    const row = (end: string, seats: string, plan = "standard") => `${id(1)},nile,trading,${plan},${end},${seats},`;
    const kind = BulkKind.LICENSES;
    const update = { kind, onExisting: OnExisting.UPDATE };
    const first = lines(columns, row("2027-01-01T00:00:00Z", "5"));
    expect(await take(clients, first, { kind })).toMatchObject({ created: 1n });
    expect(errorsOf(await take(clients, first, { kind }))).toEqual(["2  LICENSE_EXISTS"]);
    expect(await take(clients, first, update)).toMatchObject({ unchanged: 1n, updated: 0n });
    expect(await take(clients, lines(columns, row("2028-01-01T00:00:00Z", "-1")), update)).toMatchObject({
      updated: 1n,
    });
    expect(errorsOf(await take(clients, lines(columns, row("", "", "gold")), update))).toEqual(["2 plan ROW_DIFFERS"]);
    // One of two changes of a row can't be made: the other one is not either.
    const half = lines(columns, `${id(1)},nile,trading,standard,2029-01-01T00:00:00Z,5,`).replace("seats", "features");
    expect(errorsOf(await take(clients, half.replace(",5,", ",egx_access,"), update))).toEqual([
      "2 update_mask INVALID_FIELD",
    ]);
    const { license } = await clients.licenses.getLicense({ licenseId: id(1) });
    expect(license?.seats).toBeUndefined();
    expect(timestampDate(license?.validUntil as never)).toEqual(new Date("2028-01-01T00:00:00Z"));
    const { entries } = await clients.licenses.listLicenseEvents({ holder: { case: "licenseId", value: id(1) } });
    expect(entries.map(({ cause }) => cause)).toEqual([
      LicenseChangeCause.PROVISIONED,
      LicenseChangeCause.RENEWED,
      LicenseChangeCause.UPDATED,
    ]);
  });

  test("a row that leaves out versions, prices and times of add-ons and grants is unchanged when it comes again", async () => {
    const clients = await newTenant();
    const { catalog } = clients;
    const offers = [{ plan: "plus", pricing: { case: "price", value: { currency: "USD", amountMinor: 7n } } as const }];
    const plan = { product: "trading", plan: "plus", name: "Plus" };
    const type = LicenseType.STANDARD;
    const terms = { type, features: ["basic_trading"], grantableFeatures: ["*"] };
    await catalog.createPlan({ requestId: newId(), ...plan, terms });
    for (const addOn of ["beta", "alpha"]) {
      const sold = { features: ["egx_access"], offers: offers.map((offer) => ({ ...offer, priceCycle: Cycle.YEAR })) };
      await catalog.createAddOn({ requestId: newId(), product: "trading", addOn, name: addOn, terms: sold });
    }
    const file = (quantity: number) =>
      `${JSON.stringify({
        license_id: id(1),
        customer_id: "nile",
        product: "trading",
        plan: "plus",
        grants: [{ feature: "egx_access" }],
        add_ons: [
          { add_on: "beta", quantity },
          { add_on: "alpha", quantity: 1 },
        ],
      })}\n`;
    const settings = { kind: BulkKind.LICENSES, format: BulkFormat.JSONL };
    const update = { ...settings, onExisting: OnExisting.UPDATE };
    expect(await take(clients, file(2), settings)).toMatchObject({ created: 1n });
    expect(await take(clients, file(2), update)).toMatchObject({ unchanged: 1n, failed: 0n });
    expect(errorsOf(await take(clients, file(3), update))).toEqual(["1 add_ons ROW_DIFFERS"]);
  });

  test("an update locks its customers in the order of their ids, not of the rows: who has the first one is waited for with nothing held", async () => {
    const clients = await newTenant();
    for (const customerId of ["a", "b"]) {
      await clients.customers.createCustomer({ requestId: newId(), customerId, name: customerId });
    }
    const file = (seats: number) =>
      lines(
        "license_id,customer_id,product,plan,seats",
        `${id(1)},b,trading,standard,${seats}`,
        `${id(2)},a,trading,standard,${seats}`,
      );
    const kind = BulkKind.LICENSES;
    expect(await take(clients, file(5), { kind })).toMatchObject({ created: 2n });
    const { databases } = harness.database;
    let updating: Promise<Import> | undefined;
    await inTenant(databases, clients.tenant, async (tx) => {
      await lockCustomer(tx, clients.tenant, "a");
      updating = take(clients, file(6), { kind, onExisting: OnExisting.UPDATE });
      await untilOneWaits(harness.database);
      await sql`SELECT FROM customer WHERE tenant_id = ${clients.tenant} AND customer_id = 'b'
                  FOR NO KEY UPDATE NOWAIT`.execute(tx);
    });
    expect(await updating).toMatchObject({ updated: 2n });
  });

  test("events, each of which has everything that its customer holds, are written by some megabytes", async () => {
    const clients = await newTenant();
    const metadata = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`note-${index}`, "x".repeat(480)]));
    const row = JSON.stringify({ customer_id: "nile", product: "trading", plan: "standard", metadata });
    const state = await take(clients, `${row}\n`.repeat(20), { kind: BulkKind.LICENSES, format: BulkFormat.JSONL });
    expect([errorsOf(state), state.created]).toEqual([[], 20n]);
    const { rows } = await inTenant(harness.database.databases, clients.tenant, (tx) =>
      sql<{ bytes: number }>`
        SELECT sum(octet_length(payload))::integer AS bytes FROM event WHERE stream = 'customer/nile'
         GROUP BY xmin::text, cmin::text`.execute(tx),
    );
    const bytes = rows.map((one) => one.bytes);
    expect(bytes.reduce((sum, one) => sum + one)).toBeGreaterThan(4.8 * 1024 * 1024);
    expect(Math.max(...bytes)).toBeLessThan(4.7 * 1024 * 1024);
  });

  test("a customer holds 500 licenses at most, one by one", async () => {
    const clients = await newTenant();
    const row = "nile,trading,standard";
    const state = await take(clients, lines("customer_id,product,plan", ...Array<string>(503).fill(row)), {
      kind: BulkKind.LICENSES,
    });
    expect([state.created, errorsOf(state)]).toEqual([
      500n,
      [502, 503, 504].map((line) => `${line}  TOO_MANY_LICENSES`),
    ]);
  });
});

describe("pieces", () => {
  const text = lines(header, 'a,"Ä, ""b""\r\nc",a@x.example,1', "b,not,an address,", "", "c,𝄞,,3").slice(0, -2);
  const file = Buffer.from(`\uFEFF${text}`);
  const customersOf = async (clients: Clients) =>
    (await clients.customers.listCustomers({})).customers.map(({ customerId, name, email, employeeCount }) => [
      customerId,
      name,
      email,
      employeeCount,
    ]);

  test("a file cut at any one byte, or at every byte, is the same", async () => {
    const whole = await newTenant();
    const expected = await send(whole, await begin(whole), file);
    expect(expected).toMatchObject({ created: 2n, failed: 1n });
    const everywhere = Array.from({ length: file.length - 1 }, (_, index) => index + 1);
    for (const cuts of [everywhere, ...everywhere.map((place) => [place])]) {
      const clients = await newTenant();
      const state = await send(clients, await begin(clients), file, cuts);
      const { created, failed, rows, nextOffset, status } = expected;
      expect(state).toMatchObject({ created, failed, rows, nextOffset, status });
      expect(errorsOf(state)).toEqual(errorsOf(expected));
      expect(await customersOf(clients)).toEqual(await customersOf(whole));
    }
  });

  test("a chunk whose answer was lost is sent again, also from further back, and counts once", async () => {
    const clients = await newTenant();
    const importId = await begin(clients);
    const chunk = (from: number, to: number) => ({
      importId,
      offset: BigInt(from),
      data: file.subarray(from, to),
      final: to === file.length,
    });
    const cut = file.indexOf("c,𝄞");
    const once = (await clients.bulk.importChunk(chunk(0, cut + 3))).import;
    expect((await clients.bulk.importChunk(chunk(0, cut + 3))).import).toEqual(once);
    expect((await clients.bulk.importChunk(chunk(0, 10))).import).toEqual(once);
    const ahead = clients.bulk.importChunk(chunk(cut + 4, file.length));
    await expect(ahead).rejects.toMatchObject({
      reason: "IMPORT_OUT_OF_STEP",
      metadata: { next_offset: `${cut + 3}` },
    });
    const last = (await clients.bulk.importChunk(chunk(2, file.length))).import;
    expect(last).toMatchObject({ status: ImportStatus.COMPLETED, created: 2n, failed: 1n, rows: 3n });
    expect((await clients.bulk.importChunk(chunk(2, file.length))).import).toEqual(last);
    expect(await customersOf(clients)).toHaveLength(3);
    await expect(
      clients.bulk.importChunk({ importId, offset: BigInt(file.length), data: Buffer.from("x") }),
    ).rejects.toMatchObject({ reason: "IMPORT_ENDED", metadata: { status: "completed" } });
  });

  test("its connection dies at each of its writes in turn, again and again: each row once", async () => {
    const clients = await newTenant();
    const rows = Array.from({ length: 1_500 }, (_, index) => `c-${index},Customer ${index},,${index}`);
    const many = Buffer.from(lines(header, ...rows));
    const importId = await begin(clients);
    // In the order in which they are written, the import's own row last; nothing dies in the fifth turn.
    const writes = ["customer", "license_history", "event", "import", undefined];
    let state: Import | undefined;
    for (let turn = 0; state?.status !== ImportStatus.COMPLETED && turn < 100; turn++) {
      const { import: now } = await retried(() => clients.bulk.getImport({ importId }));
      const offset = Number(now?.nextOffset);
      const end = Math.min(many.length, offset + 9_999);
      const chunk = { importId, offset: BigInt(offset), data: many.subarray(offset, end), final: end === many.length };
      const send = () =>
        clients.bulk.importChunk(chunk).then(
          (reply) => reply.import,
          (error: unknown) => void expect(error).toMatchObject({ code: "UNAVAILABLE" }),
        );
      const table = writes[turn % writes.length];
      state = await (table === undefined ? send() : dyingAt(table, send));
    }
    expect(state).toMatchObject({ created: 1_500n, rows: 1_500n, failed: 0n });
    expect(await rowsOf("license_history", clients.tenant)).toHaveLength(1_501);
  });

  test("many callers send the same file at once: each row is applied once", async () => {
    const clients = await newTenant();
    const rows = Array.from({ length: 1_000 }, (_, index) => `c-${index},Customer ${index},,${index}`);
    const many = Buffer.from(lines(header, ...rows));
    const cuts = [1, 2, 3, 4, 5, 6].map((part) => Math.floor((many.length * part) / 7));
    const importId = await begin(clients);
    await Promise.all(Array.from({ length: 6 }, () => send(clients, importId, many, cuts).catch(outOfStep)));
    const state = await send(clients, importId, many, cuts);
    expect(state).toMatchObject({ status: ImportStatus.COMPLETED, created: 1_000n, failed: 0n, rows: 1_000n });
    const history = await rowsOf("license_history", clients.tenant);
    expect(history).toHaveLength(1_001);
  });

  test("as imports of their own they meet at the rows: one creates, the others pass over", async () => {
    const clients = await newTenant();
    const rows = Array.from({ length: 600 }, (_, index) => `c-${(index * 7) % 600},Customer ${index},,${index}`);
    const states = await Promise.all(
      Array.from({ length: 4 }, () => take(clients, lines(header, ...rows), { onExisting: OnExisting.SKIP })),
    );
    const sum = (of: "created" | "skipped" | "failed") => states.reduce((total, state) => total + state[of], 0n);
    expect([sum("created"), sum("skipped"), sum("failed")]).toEqual([600n, 1_800n, 0n]);
    expect(await rowsOf("license_history", clients.tenant)).toHaveLength(601);
  });

  test("licenses of the same customers at once: versions without gaps, each license once", async () => {
    const clients = await newTenant();
    await take(clients, lines("customer_id,name", ...["a", "b", "c"].map((id) => `${id},${id}`)));
    const rows = Array.from({ length: 120 }, (_, index) => `${newId()},${"abc"[index % 3]},trading,standard`);
    const columns = "license_id,customer_id,product,plan";
    const states = await Promise.all(
      [rows, rows.toReversed(), rows].map((order) =>
        take(clients, lines(columns, ...order), { kind: BulkKind.LICENSES, onExisting: OnExisting.SKIP }),
      ),
    );
    expect(states.reduce((total, { created }) => total + created, 0n)).toBe(120n);
    expect(states.map(errorsOf)).toEqual([[], [], []]);
    const { entries } = await clients.licenses.listLicenseEvents({
      holder: { case: "customerId", value: "a" },
      pageSize: 100,
    });
    expect(entries.map(({ version }) => Number(version))).toEqual(Array.from({ length: 41 }, (_, index) => index + 1));
  });

  test("beside single calls, licenses of the same customers get versions without gaps", async () => {
    const clients = await newTenant();
    await take(clients, lines("customer_id,name", ...["a", "b", "c"].map((id) => `${id},${id}`)));
    const rows = (first: string) => Array.from({ length: 60 }, (_, index) => `${first[index % 3]},trading,standard`);
    const single = { customerId: "a", product: "trading", plan: "standard" };
    const [one, two, three] = await Promise.all([
      ...["abc", "cba", "bca"].map((order) =>
        take(clients, lines("customer_id,product,plan", ...rows(order)), { kind: BulkKind.LICENSES }),
      ),
      ...Array.from({ length: 20 }, () => clients.licenses.provisionLicense({ requestId: newId(), ...single })),
    ]);
    for (const state of [one, two, three] as Import[]) expect([state.created, errorsOf(state)]).toEqual([60n, []]);
    const { entries } = await clients.licenses.listLicenseEvents({
      holder: { case: "customerId", value: "a" },
      pageSize: 100,
    });
    expect(entries.map(({ version }) => Number(version))).toEqual(Array.from({ length: 81 }, (_, index) => index + 1));
  });
});

/** Makes a call, and ends the session in which it writes to a table at the moment when it is about to. */
async function dyingAt<T>(table: string, call: () => Promise<T>): Promise<T> {
  let called: Promise<T> | undefined;
  await harness.database.asSuperuser(async (client) => {
    await client.query(`BEGIN; LOCK TABLE ${table} IN SHARE MODE`);
    called = call();
    await until(`a session that writes to ${table} has died`, async () => {
      const { rowCount } = await client.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND usename = $1 AND pg_backend_pid() = ANY (pg_blocking_pids(pid))`,
        [roles.app],
      );
      return rowCount === 1;
    });
    await client.query("ROLLBACK");
  });
  return called as Promise<T>;
}

/** Repeats what a dying connection may fail. */
async function retried<T>(ask: () => Promise<T>): Promise<T> {
  for (let attempts = 0; ; attempts++) {
    try {
      return await ask();
    } catch (error) {
      if (attempts === 100) throw error;
      expect(error).toMatchObject({ code: "UNAVAILABLE" });
    }
  }
}

function outOfStep(error: unknown): void {
  expect(error).toMatchObject({ reason: expect.stringMatching(/IMPORT_OUT_OF_STEP|CONFLICT_RETRY/) });
}

describe("an import", () => {
  test("a dry run tells what would happen and writes nothing", async () => {
    const clients = await newTenant();
    const tables = ["customer", "license", "event", "license_history"];
    const before = await Promise.all(tables.map((table) => rowsOf(table, clients.tenant)));
    const settings = { dryRun: true, onExisting: OnExisting.UPDATE };
    const state = await take(clients, lines(header, "nile,Nile,,5", "a,A,,1", "b,,,"), settings);
    expect(state).toMatchObject({ dryRun: true, updated: 1n, created: 1n, failed: 1n });
    const licenses = { kind: BulkKind.LICENSES, dryRun: true };
    const columns = "customer_id,product,plan";
    expect(await take(clients, lines(columns, "nile,trading,standard", "a,trading,standard"), licenses)).toMatchObject({
      created: 1n,
      failed: 1n,
    });
    expect(await Promise.all(tables.map((table) => rowsOf(table, clients.tenant)))).toEqual(before);
  });

  test("its id is its client's: the same settings find it again, others are refused", async () => {
    const clients = await newTenant();
    const importId = await begin(clients, {}, "customers-2026.csv");
    await send(clients, importId, Buffer.from(lines(header, "a,A,,1")));
    const again = { requestId: newId(), importId, kind: BulkKind.CUSTOMERS, format: BulkFormat.CSV };
    const { import: found } = await clients.bulk.startImport(again);
    expect(found).toMatchObject({ status: ImportStatus.COMPLETED, created: 1n });
    await expect(clients.bulk.startImport({ ...again, requestId: newId(), dryRun: true })).rejects.toMatchObject({
      reason: "IMPORT_EXISTS",
      message: expect.stringContaining("dryRun"),
    });
  });

  test("a tenant has ten at once; one that is cancelled or silent for a day makes room", async () => {
    const clients = await newTenant();
    const ids = await Promise.all(Array.from({ length: 10 }, () => begin(clients)));
    await expect(begin(clients)).rejects.toMatchObject({ reason: "TOO_MANY_BULK_RUNS", metadata: { maximum: "10" } });
    const [first = "", second = ""] = ids;
    const { import: cancelled } = await clients.bulk.cancelImport({ requestId: newId(), importId: first });
    expect(cancelled?.status).toBe(ImportStatus.CANCELLED);
    const chunk = { importId: first, offset: 0n, data: Buffer.from("x") };
    await expect(clients.bulk.importChunk(chunk)).rejects.toMatchObject({ reason: "IMPORT_ENDED" });
    await begin(clients);
    await harness.database.asSuperuser((client) =>
      client.query("UPDATE import SET updated_at = now() - interval '2 days' WHERE import_id = $1", [second]),
    );
    await begin(clients);
  });

  test("is its tenant's alone, and needs the scope of what it writes", async () => {
    const importId = await begin(brand, {}, "mine");
    const other = await newTenant();
    for (const call of [
      other.bulk.getImport({ importId }),
      other.bulk.listImportErrors({ importId }),
      other.bulk.cancelImport({ requestId: newId(), importId }),
      other.bulk.importChunk({ importId, offset: 0n, data: Buffer.from("x") }),
    ]) {
      await expect(call).rejects.toMatchObject({ code: "NOT_FOUND", reason: "IMPORT_NOT_FOUND" });
    }
    await begin(other, { dryRun: true }, "mine");
    const viewer = harness.as("tradsys", "viewer");
    await expect(begin(viewer)).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
    expect(await isolationBreaches(harness.database)).toEqual([]);
  });

  test("keeps its first 10,000 errors and counts all", async () => {
    const clients = await newTenant();
    const rows = Array.from({ length: 10_400 }, (_, index) => `c-${index},,,`);
    const state = await take(clients, lines(header, ...rows));
    expect(state.failed).toBe(10_400n);
    expect(await rowsOf("import_error", clients.tenant)).toHaveLength(10_000);
    expect(state.firstErrors).toHaveLength(10);
    const { errors, nextPageToken } = await clients.bulk.listImportErrors({ importId: state.importId, pageSize: 3 });
    const { errors: next } = await clients.bulk.listImportErrors({
      importId: state.importId,
      pageToken: nextPageToken,
    });
    expect([...errors, ...next.slice(0, 1)].map(({ line }) => line)).toEqual([2n, 3n, 4n, 5n]);
  });
});
