import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import {
  BulkAction,
  type BulkOperation,
  BulkOperationStatus,
  BulkOutcome,
  type BulkResult,
  type LicenseSelectionSchema,
} from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { Cycle, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { RenewFrom } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import { until } from "@licet/platform/testing/until";
import { purgeRuns } from "../src/store/bulk.ts";
import { type Clients, type Harness, seedTenant, startHarness } from "./harness.ts";

const start = new Date("2026-11-22T10:00:00Z");
let harness: Harness;
let tenants = 0;

beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.stop());
beforeEach(() => {
  harness.clock.now = start;
});

type Selection = MessageInitShape<typeof LicenseSelectionSchema>;
type Brand = Clients & { readonly tenant: string };

/** A tenant with a plan `pro` of two versions, and a plan `other`. */
async function newBrand(): Promise<Brand> {
  const tenant = `brand-${tenants++}`;
  const clients = await seedTenant(harness, tenant);
  const of = { product: "trading", plan: "pro" };
  const price = (minor: bigint) => ({ price: { currency: "USD", amountMinor: minor }, priceCycle: Cycle.YEAR });
  const terms = { type: LicenseType.STANDARD, features: ["basic_trading"], seats: 5, ...price(100n) };
  await clients.catalog.createPlan({ requestId: newId(), ...of, name: "Pro", terms });
  await clients.catalog.createPlan({ requestId: newId(), product: "trading", plan: "other", name: "Other", terms });
  return { tenant, ...clients };
}

/** Publishes version 2 of `pro`: more for more. */
const publish = ({ catalog }: Brand) =>
  catalog.publishPlanVersion({
    requestId: newId(),
    product: "trading",
    plan: "pro",
    terms: {
      type: LicenseType.STANDARD,
      features: ["basic_trading", "egx_access"],
      limits: [{ metric: "users", maximum: 9n, window: 1, enforcement: 1 }],
      seats: 8,
      price: { currency: "USD", amountMinor: 250n },
      priceCycle: Cycle.YEAR,
    },
  });

async function provision({ licenses, customers }: Brand, count: number, plan = "pro", seats?: number) {
  const ids: string[] = [];
  for (let index = 0; index < count; index++) {
    const { customer } = await customers.createCustomer({ requestId: newId(), name: "C" });
    const { license } = await licenses.provisionLicense({
      requestId: newId(),
      customerId: customer?.customerId ?? "",
      product: "trading",
      plan,
      ...(seats !== undefined && { seats }),
    });
    ids.push(license?.licenseId as string);
  }
  return ids.sort();
}

/** Waits for an operation to end, as a client does. */
async function finished({ bulk }: Brand, operation: BulkOperation | undefined): Promise<BulkOperation> {
  let now = operation;
  await until("the operation has ended", async () => {
    ({ operation: now } = await bulk.getBulkOperation({ operationId: operation?.operationId ?? "" }));
    return now?.status !== BulkOperationStatus.RUNNING;
  });
  return now as BulkOperation;
}

async function suspendAll(brand: Brand, selection: Selection, more: { dryRun?: boolean; reason?: string } = {}) {
  const change = { case: "suspend", value: {} } as const;
  const { operation } = await brand.bulk.startBulkChange({ requestId: newId(), selection, change, ...more });
  return finished(brand, operation);
}

async function resultsOf({ bulk }: Brand, { operationId }: BulkOperation, failedOnly = false): Promise<BulkResult[]> {
  const results: BulkResult[] = [];
  for (let pageToken = ""; ; ) {
    const page = await bulk.listBulkResults({ operationId, failedOnly, pageSize: 2, pageToken });
    results.push(...page.results);
    if (page.nextPageToken === "") return results;
    pageToken = page.nextPageToken;
  }
}

const statusOf = async ({ licenses }: Brand, licenseId: string) =>
  (await licenses.getLicense({ licenseId })).license?.status;

/** Every row of a table that belongs to a tenant, as the database's owner sees it. */
function rowsOf(table: string, tenant: string): Promise<Record<string, unknown>[]> {
  return harness.database.asSuperuser(async (client) => {
    const { rows } = await client.query(`SELECT * FROM ${table} WHERE tenant_id = $1 ORDER BY 1, 2, 3`, [tenant]);
    return rows;
  });
}

describe("suspend, resume, renew", () => {
  test("change the selected licenses as the RPC for one does, told with actor and reason", async () => {
    const brand = await newBrand();
    const [one = "", two = ""] = await provision(brand, 2);
    const [other = ""] = await provision(brand, 1, "other");
    const done = await suspendAll(brand, { product: "trading", plan: "pro" }, { reason: "fraud wave" });
    expect(done).toMatchObject({
      action: BulkAction.SUSPEND,
      status: BulkOperationStatus.COMPLETED,
      total: 2n,
      lookedAt: 2n,
      changed: 2n,
      failed: 0n,
      actor: `key-of-${brand.tenant}`,
    });
    expect(await Promise.all([one, two, other].map((id) => statusOf(brand, id)))).toEqual([
      LicenseStatus.SUSPENDED,
      LicenseStatus.SUSPENDED,
      LicenseStatus.ACTIVE,
    ]);
    const { entries } = await brand.licenses.listLicenseEvents({ holder: { case: "licenseId", value: one } });
    expect(entries.at(-1)).toMatchObject({
      cause: LicenseChangeCause.SUSPENDED,
      actor: `key-of-${brand.tenant}`,
      reason: "fraud wave",
      version: 3n,
      before: { status: LicenseStatus.ACTIVE },
      after: { status: LicenseStatus.SUSPENDED, statusReason: "fraud wave" },
    });
    const resume = { case: "resume", value: {} } as const;
    const selection = { statuses: [LicenseStatus.SUSPENDED] };
    const { operation } = await brand.bulk.startBulkChange({ requestId: newId(), selection, change: resume });
    expect(await finished(brand, operation)).toMatchObject({ changed: 2n, skipped: 1n, total: 3n });
    expect(await statusOf(brand, two)).toBe(LicenseStatus.ACTIVE);
    const { entries: later } = await brand.licenses.listLicenseEvents({ holder: { case: "licenseId", value: one } });
    expect(later.at(-1)?.reason).toBe(`bulk operation ${operation?.operationId}`);
  });

  test("what can't be changed is told for each license, and holds up no other", async () => {
    const brand = await newBrand();
    const [one = "", two = "", three = ""] = await provision(brand, 3);
    await brand.licenses.revokeLicense({ requestId: newId(), licenseId: two });
    const missing = "01930000-0000-7000-8000-00000000dead";
    const done = await suspendAll(brand, { licenseIds: [three, two, one, missing] });
    expect(done).toMatchObject({ total: 4n, lookedAt: 4n, changed: 2n, failed: 2n });
    expect(await resultsOf(brand, done)).toMatchObject([
      { licenseId: missing, outcome: BulkOutcome.FAILED, reason: "LICENSE_NOT_FOUND" },
      {
        licenseId: two,
        outcome: BulkOutcome.FAILED,
        reason: "TRANSITION_NOT_ALLOWED",
        message: expect.stringContaining("is revoked"),
        before: { status: LicenseStatus.REVOKED },
      },
    ]);
    expect(await statusOf(brand, three)).toBe(LicenseStatus.SUSPENDED);
  });

  test("renew: to a fixed time, or by a term", async () => {
    const brand = await newBrand();
    const [one = ""] = await provision(brand, 1);
    const renew = async (value: object) => {
      const change = { case: "renew", value } as never;
      const { operation } = await brand.bulk.startBulkChange({
        requestId: newId(),
        selection: { licenseIds: [one.toUpperCase()] },
        change,
      });
      return finished(brand, operation);
    };
    const end = new Date("2031-05-06T00:00:00Z");
    const endOf = async () =>
      timestampDate((await brand.licenses.getLicense({ licenseId: one })).license?.validUntil as never);
    expect(await renew({ end: { case: "validUntil", value: timestampFromDate(end) } })).toMatchObject({ changed: 1n });
    expect(await endOf()).toEqual(end);
    await renew({ end: { case: "termFrom", value: RenewFrom.EXPIRY }, termDays: 10 });
    expect(await endOf()).toEqual(new Date("2031-05-16T00:00:00Z"));
    const past = await renew({ end: { case: "validUntil", value: timestampFromDate(new Date(0)) } });
    expect(past).toMatchObject({ failed: 1n });
    const twice = { case: "renew", value: { end: { case: "validUntil", value: {} }, termDays: 3 } } as never;
    await expect(
      brand.bulk.startBulkChange({ requestId: newId(), selection: { product: "trading" }, change: twice }),
    ).rejects.toMatchObject({ violations: [{ field: "renew.term_days" }] });
  });
});

describe("MigrateLicenses", () => {
  test("a dry run lists features, limits, seats and price before and after, and writes nothing", async () => {
    const brand = await newBrand();
    const [one = "", two = ""] = await provision(brand, 2);
    await publish(brand);
    const [onLatest = ""] = await provision(brand, 1);
    await brand.licenses.cancelLicense({ requestId: newId(), licenseId: two });
    const tables = ["customer", "license", "event", "license_history"];
    const before = await Promise.all(tables.map((table) => rowsOf(table, brand.tenant)));
    const selection = { product: "trading", plan: "pro" };
    const { operation } = await brand.licenses.migrateLicenses({
      requestId: newId(),
      selection,
      plan: "pro",
      dryRun: true,
    });
    const done = await finished(brand, operation);
    expect(done).toMatchObject({ action: BulkAction.MIGRATE, dryRun: true, changed: 1n, unchanged: 1n, failed: 1n });
    expect(await resultsOf(brand, done)).toMatchObject([
      {
        licenseId: one,
        outcome: BulkOutcome.CHANGED,
        before: { planVersion: 1, features: ["basic_trading"], limits: [], seats: 5 },
        after: { planVersion: 2, features: ["basic_trading", "egx_access"], limits: [{ maximum: 9n }], seats: 8 },
        priceBefore: { currency: "USD", amountMinor: 100n },
        cycleBefore: Cycle.YEAR,
        priceAfter: { amountMinor: 250n },
        cycleAfter: Cycle.YEAR,
      },
      { licenseId: two, outcome: BulkOutcome.FAILED, reason: "TRANSITION_NOT_ALLOWED" },
    ]);
    expect((await resultsOf(brand, done, true)).map(({ licenseId }) => licenseId)).toEqual([two]);
    expect(await Promise.all(tables.map((table) => rowsOf(table, brand.tenant)))).toEqual(before);
    expect((await brand.licenses.getLicense({ licenseId: onLatest })).license?.planVersion).toBe(2);
  });

  test("does to each license what the dry run said, as ChangePlan does", async () => {
    const brand = await newBrand();
    const [one = ""] = await provision(brand, 1, "pro", 3);
    const [free = ""] = await provision(brand, 1, "standard");
    await publish(brand);
    const run = async (selection: Selection, keepSeats: boolean, dryRun: boolean) => {
      const wanted = { requestId: newId(), selection, plan: "pro", planVersion: 2, keepSeats, dryRun, reason: "2027" };
      return finished(brand, (await brand.licenses.migrateLicenses(wanted)).operation);
    };
    const pro = { product: "trading", plan: "pro", planVersions: [1] };
    const [expected] = await resultsOf(brand, await run(pro, true, true));
    expect(await run(pro, true, false)).toMatchObject({ changed: 1n });
    const { license } = await brand.licenses.getLicense({ licenseId: one });
    expect(license).toEqual({ ...expected?.after, seatsUsed: 0 });
    expect(license).toMatchObject({ planVersion: 2, seats: 3 });
    expect(await run({ product: "trading", plan: "standard" }, false, false)).toMatchObject({ changed: 1n });
    expect((await brand.licenses.getLicense({ licenseId: free })).license).toMatchObject({ plan: "pro", seats: 8 });
    const { entries } = await brand.licenses.listLicenseEvents({ holder: { case: "licenseId", value: one } });
    expect(entries.at(-1)).toMatchObject({ cause: LicenseChangeCause.PLAN_CHANGED, reason: "2027" });
  });

  test("a version that is published meanwhile does not split it", async () => {
    const brand = await newBrand();
    const [one = ""] = await provision(brand, 1, "other");
    const { operation } = await brand.licenses.migrateLicenses({
      requestId: newId(),
      selection: { product: "trading", plan: "other" },
      plan: "pro",
    });
    await publish(brand);
    await finished(brand, operation);
    expect((await brand.licenses.getLicense({ licenseId: one })).license).toMatchObject({
      plan: "pro",
      planVersion: 1,
    });
  });

  test.each<[string, object, string]>([
    ["without a product", { selection: {} }, "INVALID_FIELD"],
    ["to an unknown plan", { plan: "none" }, "PLAN_NOT_FOUND"],
    ["to an unknown version", { planVersion: 7 }, "PLAN_NOT_FOUND"],
    ["of an unknown product", { selection: { product: "none" } }, "PLAN_NOT_FOUND"],
    [
      "from an unknown version",
      { selection: { product: "trading", plan: "pro", planVersions: [9] } },
      "PLAN_NOT_FOUND",
    ],
  ])("%s is refused", async (_name, wrong, reason) => {
    const brand = await newBrand();
    const wanted = { requestId: newId(), selection: { product: "trading" }, plan: "pro", ...wrong };
    await expect(brand.licenses.migrateLicenses(wanted)).rejects.toMatchObject({ reason });
  });
});

describe("an operation", () => {
  test("goes on over workers that stop and die: each license has one turn", async () => {
    const brand = await newBrand();
    const ids = await provision(brand, 60);
    const { operation } = await brand.bulk.startBulkChange({
      requestId: newId(),
      selection: { product: "trading" },
      change: { case: "suspend", value: {} },
    });
    // Beside the leader, three who don't ask whether they lead; one of them is stopped on the way.
    const others = Array.from({ length: 3 }, () => harness.instance());
    const all = others.map((instance) => instance.finishBulk());
    await others[0]?.stop();
    await Promise.all(all);
    const done = await finished(brand, operation);
    expect(done).toMatchObject({ changed: 60n, failed: 0n, lookedAt: 60n });
    for (const instance of others.slice(1)) await instance.stop();
    const history = await rowsOf("license_history", brand.tenant);
    const suspended = history.filter(({ cause }) => cause === LicenseChangeCause.SUSPENDED);
    expect(suspended.map(({ license_id: id }) => id).sort()).toEqual(ids);
  });

  test("beside people who change the same licenses: nobody's change is lost", async () => {
    const brand = await newBrand();
    const ids = await provision(brand, 30);
    const [done] = await Promise.all([
      suspendAll(brand, { product: "trading" }),
      ...ids.map((licenseId) => brand.licenses.revokeLicense({ requestId: newId(), licenseId })),
    ]);
    expect(done.changed + done.failed).toBe(30n);
    for (const licenseId of ids) expect(await statusOf(brand, licenseId)).toBe(LicenseStatus.REVOKED);
    const history = await rowsOf("license_history", brand.tenant);
    expect(history.filter(({ cause }) => cause === LicenseChangeCause.SUSPENDED)).toHaveLength(Number(done.changed));
  });

  test("a repeated start is the same operation", async () => {
    const brand = await newBrand();
    const wanted = {
      requestId: newId(),
      selection: { product: "trading" },
      change: { case: "suspend", value: {} },
    } as const;
    const starts = await Promise.all(Array.from({ length: 20 }, () => brand.bulk.startBulkChange(wanted)));
    expect(new Set(starts.map(({ operation }) => operation?.operationId)).size).toBe(1);
    expect(await rowsOf("bulk_operation", brand.tenant)).toHaveLength(1);
  });

  test("is cancelled, is bounded in number, needs a selection, is its tenant's", async () => {
    const brand = await newBrand();
    const change = { case: "suspend", value: {} } as const;
    const begin = (clients: Brand, selection: Selection) =>
      clients.bulk.startBulkChange({ requestId: newId(), selection, change });
    await expect(begin(brand, {})).rejects.toMatchObject({ violations: [{ field: "selection" }] });
    // No worker takes these: they are not the database's role to look at, as if none led.
    const hidden = (on: boolean) =>
      harness.database.asSuperuser((client) =>
        client.query(
          on
            ? "CREATE POLICY hidden ON bulk_operation AS RESTRICTIVE FOR SELECT TO licet_system USING (false)"
            : "DROP POLICY hidden ON bulk_operation",
        ),
      );
    await hidden(true);
    const operations: (BulkOperation | undefined)[] = [];
    for (let count = 0; count < 10; count++) {
      operations.push((await begin(brand, { product: "trading" })).operation);
    }
    await expect(begin(brand, { product: "trading" })).rejects.toMatchObject({ reason: "TOO_MANY_BULK_RUNS" });
    const operationId = operations[0]?.operationId as string;
    const other = await newBrand();
    for (const call of [
      other.bulk.getBulkOperation({ operationId }),
      other.bulk.listBulkResults({ operationId }),
      other.bulk.cancelBulkOperation({ requestId: newId(), operationId }),
    ]) {
      await expect(call).rejects.toMatchObject({ code: "NOT_FOUND", reason: "BULK_OPERATION_NOT_FOUND" });
    }
    const { operation } = await brand.bulk.cancelBulkOperation({ requestId: newId(), operationId });
    expect(operation?.status).toBe(BulkOperationStatus.CANCELLED);
    await hidden(false);
    for (const left of operations.slice(1)) await finished(brand, left);
    const { operation: ended } = await brand.bulk.cancelBulkOperation({
      requestId: newId(),
      operationId: operations[1]?.operationId as string,
    });
    expect(ended?.status).toBe(BulkOperationStatus.COMPLETED);
  });

  test("is forgotten after 30 days with its results, as imports are", async () => {
    const brand = await newBrand();
    const [one = ""] = await provision(brand, 1);
    await brand.licenses.revokeLicense({ requestId: newId(), licenseId: one });
    const done = await suspendAll(brand, { licenseIds: [one] });
    expect(done.failed).toBe(1n);
    await harness.database.asSuperuser((client) =>
      client.query("UPDATE bulk_operation SET updated_at = now() - interval '31 days' WHERE tenant_id = $1", [
        brand.tenant,
      ]),
    );
    // It takes one at a time: there may be more.
    expect(await purgeRuns(harness.database.databases, 1_000)).toBe(1_000);
    expect(await purgeRuns(harness.database.databases, 1_000)).toBe(0);
    expect(await rowsOf("bulk_operation", brand.tenant)).toEqual([]);
    expect(await rowsOf("bulk_result", brand.tenant)).toEqual([]);
  });
});
