import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { LicenseHistoryEntry } from "@licet/contracts/licet/licensing/v1/license_history_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  PaymentStanding,
  type ProvisionLicenseRequest,
  RenewFrom,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { until } from "@licet/platform/testing/until";
import { type Clients, type Harness, seedTenant, startHarness } from "./harness.ts";

const DAY_MS = 86_400_000;
const start = new Date("2026-11-22T10:00:00Z");
const day = (count: number) => new Date(start.getTime() + count * DAY_MS);

let harness: Harness;
let brand: Clients;
let billing: Clients;

beforeAll(async () => {
  harness = await startHarness();
  brand = await seedTenant(harness, "tradsys");
  billing = harness.as("tradsys", "mesh");
  for (const [plan, type, termDays] of [
    ["trial", LicenseType.TRIAL, 30],
    ["yearly", LicenseType.STANDARD, 0],
    ["enterprise", LicenseType.ENTERPRISE, 365],
  ] as const) {
    await brand.catalog.createPlan({
      requestId: newId(),
      product: "trading",
      plan,
      name: plan,
      terms: { type, features: [plan === "enterprise" ? "*" : "basic_trading"], termDays, seats: 5 },
    });
  }
});
afterAll(() => harness.stop());
beforeEach(() => {
  harness.clock.now = start;
});

async function newCustomer(): Promise<string> {
  const { customer } = await brand.customers.createCustomer({ requestId: newId(), name: "C" });
  return customer?.customerId as string;
}

/** A license of a customer of its own. */
async function provision(changes: Partial<Omit<ProvisionLicenseRequest, "$typeName" | "$unknown">> = {}) {
  const customerId = changes.customerId ?? (await newCustomer());
  const wanted = { requestId: newId(), customerId, product: "trading", plan: "yearly", ...changes };
  const { license } = await brand.licenses.provisionLicense(wanted);
  if (!license) throw new Error("the reply has no license");
  return license;
}

/** The request of a change of a license. */
const of = (licenseId: string) => ({ requestId: newId(), licenseId });

/** The whole history of a license or customer, in pages of three. */
async function history(holder: { licenseId: string } | { customerId: string }): Promise<LicenseHistoryEntry[]> {
  const entries: LicenseHistoryEntry[] = [];
  const wanted =
    "licenseId" in holder
      ? ({ case: "licenseId", value: holder.licenseId } as const)
      : ({ case: "customerId", value: holder.customerId } as const);
  for (let pageToken = "", page = 0; page < 200; page++) {
    const reply = await brand.licenses.listLicenseEvents({ holder: wanted, pageSize: 3, pageToken });
    entries.push(...reply.entries);
    pageToken = reply.nextPageToken;
    if (pageToken === "") return entries;
  }
  throw new Error("the history has no end");
}

const name = (status: LicenseStatus | undefined) => (status === undefined ? "" : LicenseStatus[status]);

/** An entry as one would tell it. */
function told(entry: LicenseHistoryEntry): string {
  const at = (timestampDate(entry.effectiveAt as never).getTime() - start.getTime()) / DAY_MS;
  const notice = entry.noticeDays > 0 ? ` in ${entry.noticeDays} days` : "";
  const reason = entry.reason === "" ? "" : ` (${entry.reason})`;
  const moved = `${name(entry.before?.status)} > ${name(entry.after?.status)}`;
  return `${at}: ${LicenseChangeCause[entry.cause]}${notice} by ${entry.actor}, ${moved}${reason}`;
}

/** Lets the days pass, with the scheduler looking once on each. */
async function passTo(count: number): Promise<void> {
  while (harness.clock.now < day(count)) {
    harness.clock.now = new Date(harness.clock.now.getTime() + DAY_MS);
    await harness.licensing.settle();
  }
}

test("a year of a license, told back by its history exactly", async () => {
  const { licenseId, customerId } = await provision({ plan: "trial" });
  await passTo(25);
  await brand.licenses.changePlan({ ...of(licenseId), plan: "yearly", reason: "bought" });
  await passTo(100);
  const paymentOf = (standing: PaymentStanding) => ({ ...of(licenseId), standing, reason: "card refused" });
  await billing.licenses.setPaymentStanding(paymentOf(PaymentStanding.PAST_DUE));
  await passTo(101);
  const graceUntil = timestampFromDate(day(108));
  await billing.licenses.setPaymentStanding({ ...paymentOf(PaymentStanding.GRACE), graceUntil });
  await passTo(110);
  await brand.licenses.resumeLicense({ ...of(licenseId), reason: "wire transfer seen" });
  await passTo(300);
  const end = { case: "termFrom", value: RenewFrom.NOW } as const;
  await brand.licenses.renewLicense({ ...of(licenseId), end, termDays: 60 });
  await passTo(350);
  await brand.licenses.cancelLicense({ ...of(licenseId), atEnd: true, reason: "moving on" });
  await passTo(365);

  const entries = await history({ licenseId });
  expect(entries.map(told)).toEqual([
    "0: PROVISIONED by key-of-tradsys,  > ACTIVE",
    "16: EXPIRY_NOTICE in 14 days by scheduler, ACTIVE > ACTIVE",
    "23: EXPIRY_NOTICE in 7 days by scheduler, ACTIVE > ACTIVE",
    "25: PLAN_CHANGED by key-of-tradsys, ACTIVE > ACTIVE (bought)",
    "100: PAST_DUE by key-of-tradsys, ACTIVE > PAST_DUE (card refused)",
    "101: GRACE_STARTED by key-of-tradsys, PAST_DUE > GRACE (card refused)",
    "108: GRACE_ENDED by scheduler, GRACE > SUSPENDED (unpaid)",
    "110: RESUMED by key-of-tradsys, SUSPENDED > ACTIVE (wire transfer seen)",
    "300: RENEWED by key-of-tradsys, ACTIVE > ACTIVE",
    "330: EXPIRY_NOTICE in 30 days by scheduler, ACTIVE > ACTIVE",
    "346: EXPIRY_NOTICE in 14 days by scheduler, ACTIVE > ACTIVE",
    "350: CANCELLATION_SCHEDULED by key-of-tradsys, ACTIVE > ACTIVE (moving on)",
    "360: CANCELLED by scheduler, ACTIVE > CANCELLED (moving on)",
  ]);
  // Each entry takes up where the one before left off, and the last is what the license is.
  for (const [index, { before }] of entries.entries()) expect(before).toEqual(entries[index - 1]?.after);
  const { license } = await brand.licenses.getLicense({ licenseId });
  // How many seats are taken is no part of the license's history.
  expect(license).toEqual({ ...entries.at(-1)?.after, seatsUsed: 0 });
  expect(license).toMatchObject({ status: LicenseStatus.CANCELLED, statusReason: "moving on" });
  expect(timestampDate(license?.endedAt as never)).toEqual(day(360));
  await harness.licensing.drain();
  const heard = harness.published
    .filter(({ topic, key }) => topic === "licet.license.v1" && key === `tradsys/${customerId}`)
    .map(({ value }) => fromBinary(LicenseChangedSchema, value));
  expect(heard.map(({ version }) => version)).toEqual(heard.map((_, index) => BigInt(index + 1)));
  expect(heard.map(({ cause }) => cause)).toEqual((await history({ customerId })).map(({ cause }) => cause));
});

describe("what the clock does", () => {
  test("a trial ends; one that is extended is active again", async () => {
    const { licenseId } = await provision({ plan: "trial", validUntil: timestampFromDate(day(5)) });
    await passTo(9);
    await brand.licenses.extendTrial({ ...of(licenseId), days: 10, etag: "1" });
    await passTo(10);
    expect((await history({ licenseId })).map(told)).toEqual([
      "0: PROVISIONED by key-of-tradsys,  > ACTIVE",
      "4: EXPIRY_NOTICE in 1 days by scheduler, ACTIVE > ACTIVE",
      "5: TRIAL_ENDED by scheduler, ACTIVE > GRACE",
      "8: GRACE_ENDED by scheduler, GRACE > EXPIRED",
      "9: TRIAL_EXTENDED by key-of-tradsys, EXPIRED > ACTIVE",
    ]);
  });

  test("a license that renews itself is handed to billing once, a day before its end, and again after its renewal", async () => {
    const { licenseId } = await provision({ validUntil: timestampFromDate(day(3)), autoRenew: true });
    await passTo(3);
    await brand.licenses.renewLicense({
      ...of(licenseId),
      end: { case: "validUntil", value: timestampFromDate(day(9)) },
    });
    await passTo(9);
    expect((await history({ licenseId })).map(told).filter((line) => !line.includes("NOTICE"))).toEqual([
      "0: PROVISIONED by key-of-tradsys,  > ACTIVE",
      "2: RENEWAL_DUE by scheduler, ACTIVE > ACTIVE",
      "3: GRACE_STARTED by scheduler, ACTIVE > GRACE",
      "3: RENEWED by key-of-tradsys, GRACE > ACTIVE",
      "8: RENEWAL_DUE by scheduler, ACTIVE > ACTIVE",
      "9: GRACE_STARTED by scheduler, ACTIVE > GRACE",
    ]);
  });

  test("who acts before the scheduler looks, tells what the clock did first", async () => {
    const { licenseId } = await provision({ validFrom: timestampFromDate(day(1)) });
    // One leap, so that the service's own scheduler has the least chance to be there first; either way it is told once.
    harness.clock.now = day(2);
    await brand.licenses.suspendLicense({ ...of(licenseId), reason: "audit" });
    expect((await history({ licenseId })).map(told)).toEqual([
      "0: PROVISIONED by key-of-tradsys,  > PENDING",
      "1: ACTIVATED by scheduler, PENDING > ACTIVE",
      "2: SUSPENDED by key-of-tradsys, ACTIVE > SUSPENDED (audit)",
    ]);
  });

  test("two instances, one of which breaks again and again: each thing is told once, none is left out", async () => {
    const licenses = await Promise.all(
      Array.from({ length: 40 }, () => provision({ validUntil: timestampFromDate(day(20)) })),
    );
    // The clocks of these instances are ahead, so that the suite's own scheduler has nothing to do with it.
    const ahead = { now: day(30) };
    let calls = 0;
    // Breaks in the middle of its transactions: behind the license's row, before the event.
    const broken = harness.instance({
      schedulerNow: () => ahead.now,
      newId: () => {
        calls += 1;
        if (calls % 3 === 0) throw new Error("killed");
        return newId();
      },
    });
    const other = harness.instance({ schedulerNow: () => ahead.now });
    const rounds = [broken.settle()];
    await until("the one that breaks has begun", () => calls > 0);
    rounds.push(other.settle(), cutConnections(), broken.settle());
    await Promise.allSettled(rounds);
    // What broke is put off for five minutes. A connection that was cut may show that only when it is used.
    ahead.now = new Date(day(30).getTime() + 10 * 60_000);
    const third = harness.instance({ schedulerNow: () => ahead.now });
    const settled = () =>
      Promise.all([other, third, other, third].map((instance) => instance.settle())).then(
        () => true,
        () => false,
      );
    await until("the others have done the rest, all at once", settled);
    await broken.stop();
    await other.stop();
    await third.stop();
    for (const { licenseId, customerId } of licenses) {
      expect((await history({ licenseId })).map(told)).toEqual([
        "0: PROVISIONED by key-of-tradsys,  > ACTIVE",
        "20: GRACE_STARTED by scheduler, ACTIVE > GRACE",
        "23: GRACE_ENDED by scheduler, GRACE > EXPIRED",
      ]);
      const versions = (await history({ customerId })).map(({ version }) => version);
      expect(versions).toEqual(versions.map((_, index) => BigInt(index + 1)));
    }
  });

  test("licenses of a release that told nothing are taken as they are; from then on all is told", async () => {
    const running = await provision({ validUntil: timestampFromDate(day(20)) });
    const expired = await provision({ validFrom: timestampFromDate(day(-9)), validUntil: timestampFromDate(day(-5)) });
    const asReleased = `UPDATE license SET told_status = DEFAULT, told_notice_days = DEFAULT, due_at = DEFAULT
      WHERE license_id IN ('${running.licenseId}', '${expired.licenseId}')`;
    await superuser(asReleased);
    await passTo(21);
    expect((await history({ licenseId: expired.licenseId })).map(told)).toEqual([
      "0: PROVISIONED by key-of-tradsys,  > EXPIRED",
    ]);
    expect((await history({ licenseId: running.licenseId })).map(told)).toEqual([
      "0: PROVISIONED by key-of-tradsys,  > ACTIVE",
      "6: EXPIRY_NOTICE in 14 days by scheduler, ACTIVE > ACTIVE",
      "13: EXPIRY_NOTICE in 7 days by scheduler, ACTIVE > ACTIVE",
      "19: EXPIRY_NOTICE in 1 days by scheduler, ACTIVE > ACTIVE",
      "20: GRACE_STARTED by scheduler, ACTIVE > GRACE",
    ]);
  });

  test("the scheduler looks by itself, and where the leading one is cut off the other one goes on", async () => {
    const standby = harness.instance();
    standby.start();
    const { licenseId } = await provision({ validUntil: timestampFromDate(day(20)) });
    await cutConnections("application_name = 'licet-scheduler-lock'");
    harness.clock.now = day(22);
    await until("the grace is told", async () => (await history({ licenseId })).length > 1);
    await standby.stop();
    await cutConnections("application_name = 'licet-scheduler-lock'");
    harness.clock.now = day(24);
    await until("the end of the grace is told", async () => (await history({ licenseId })).length > 2);
    expect((await history({ licenseId })).map(told)).toEqual([
      "0: PROVISIONED by key-of-tradsys,  > ACTIVE",
      "20: GRACE_STARTED by scheduler, ACTIVE > GRACE",
      "23: GRACE_ENDED by scheduler, GRACE > EXPIRED",
    ]);
  });

  /** Runs SQL on the suite's database as nobody's application would. */
  async function superuser(text: string): Promise<void> {
    await harness.database.asSuperuser(async (client) => void (await client.query(text)));
  }

  /** Ends connections to the suite's database. */
  async function cutConnections(which = "xact_start IS NOT NULL"): Promise<void> {
    await harness.database.asSuperuser(async (client) => {
      await client.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = $1 AND pid <> pg_backend_pid() AND ${which}`,
        [harness.database.name],
      );
    });
  }
});

describe("concurrency", () => {
  test("of two changes by the same etag one wins; the other is told the current etag", async () => {
    const { licenseId, etag } = await provision();
    const outcomes = await Promise.allSettled(
      ["a", "b"].map((note) =>
        brand.licenses.updateLicense({
          ...of(licenseId),
          etag,
          updateMask: { paths: ["metadata"] },
          metadata: { note },
        }),
      ),
    );
    const won = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value.license] : []));
    const lost = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
    expect(won).toHaveLength(1);
    expect(lost).toEqual([
      expect.objectContaining({ code: "ABORTED", reason: "ETAG_MISMATCH", metadata: { etag: won[0]?.etag } }),
    ]);
    expect(won[0]?.etag).not.toBe(etag);
    const again = {
      ...of(licenseId),
      etag: won[0]?.etag ?? "",
      updateMask: { paths: ["metadata"] },
      metadata: { n: "c" },
    };
    expect((await brand.licenses.updateLicense(again)).license?.metadata).toEqual({ n: "c" });
  });

  test("100 parallel renewals with one request_id have one effect and one answer", async () => {
    const { licenseId } = await provision();
    const request = { ...of(licenseId), end: { case: "termFrom", value: RenewFrom.EXPIRY } as const };
    const answers = await Promise.all(Array.from({ length: 100 }, () => brand.licenses.renewLicense(request)));
    expect(new Set(answers.map(({ license }) => license?.etag))).toEqual(new Set(["2"]));
    const { license } = await brand.licenses.getLicense({ licenseId });
    expect(timestampDate(license?.validUntil as never)).toEqual(new Date("2028-11-22T10:00:00Z"));
    expect(await history({ licenseId })).toHaveLength(2);
  });

  test("transfers to and fro at the same time: always one holder, versions without gaps, no deadlock", async () => {
    const [a, b] = [await newCustomer(), await newCustomer()];
    const mine = await Promise.all([a, a, b, b].map((customerId) => provision({ customerId })));
    for (let round = 0; round < 5; round++) {
      const outcomes = await Promise.allSettled(
        mine.flatMap(({ licenseId }) =>
          [a, b].map((toCustomerId) => brand.licenses.transferLicense({ ...of(licenseId), toCustomerId })),
        ),
      );
      for (const outcome of outcomes) {
        if (outcome.status === "fulfilled") continue;
        expect(["CONFLICT_RETRY", "INVALID_FIELD"]).toContain(outcome.reason.reason);
      }
    }
    for (const customerId of [a, b]) {
      const entries = await history({ customerId });
      expect(entries.map(({ version }) => version)).toEqual(entries.map((_, index) => BigInt(index + 1)));
    }
    // Whoever loses it held it, and the other one gets it: no lock was taken for a holder of before.
    for (const { licenseId, customerId } of mine) {
      let holder = customerId;
      for (const entry of (await history({ licenseId })).slice(1)) {
        expect(entry.customerId).toBe(holder);
        if (entry.cause === LicenseChangeCause.TRANSFERRED_AWAY) holder = holder === a ? b : a;
      }
    }
    const held = await Promise.all(
      [a, b].map(
        async (value) => (await brand.licenses.listLicenses({ holder: { case: "customerId", value } })).licenses,
      ),
    );
    expect(
      held
        .flat()
        .map(({ licenseId }) => licenseId)
        .sort(),
    ).toEqual(mine.map(({ licenseId }) => licenseId).sort());
  });
});

test("a transfer: both customers hear of it, the one who loses it first, and the history follows the license", async () => {
  const { licenseId, customerId } = await provision();
  const toCustomerId = await newCustomer();
  const reply = await brand.licenses.transferLicense({ ...of(licenseId), toCustomerId, reason: "merger" });
  expect(reply).toMatchObject({
    license: { customerId: toCustomerId, status: LicenseStatus.ACTIVE },
    consistencyToken: { customerId: toCustomerId, version: 2n },
    previousConsistencyToken: { customerId, version: 3n },
  });
  await harness.licensing.drain();
  const heard = harness.published
    .filter(({ topic }) => topic === "licet.license.v1")
    .slice(-2)
    .map(({ value }) => fromBinary(LicenseChangedSchema, value));
  expect(heard.map(({ customerId: whose, snapshot }) => [whose, snapshot?.licenses.length])).toEqual([
    [customerId, 0],
    [toCustomerId, 1],
  ]);
  const entries = await history({ licenseId });
  expect(entries.map(({ cause, customerId: whose }) => [LicenseChangeCause[cause], whose])).toEqual([
    ["PROVISIONED", customerId],
    ["TRANSFERRED_AWAY", customerId],
    ["TRANSFERRED", toCustomerId],
  ]);
  expect(entries[1]?.after).toBeUndefined();
  expect(entries[2]?.before?.customerId).toBe(customerId);
  const same = brand.licenses.transferLicense({ ...of(licenseId), toCustomerId });
  await expect(same).rejects.toMatchObject({ violations: [expect.objectContaining({ field: "to_customer_id" })] });
  const nobody = brand.licenses.transferLicense({ ...of(licenseId), toCustomerId: "nobody" });
  await expect(nobody).rejects.toMatchObject({ code: "NOT_FOUND", reason: "CUSTOMER_NOT_FOUND" });
});

describe("updates", () => {
  test("change what the mask names and nothing else", async () => {
    const { licenseId } = await provision({ metadata: { kept: "yes" }, autoRenew: true });
    const change = (paths: string[], fields: object = {}) =>
      brand.licenses.updateLicense({ ...of(licenseId), updateMask: { paths }, metadata: { other: "x" }, ...fields });
    expect((await change(["seats"], { seats: 9 })).license).toMatchObject({
      seats: 9,
      metadata: { kept: "yes" },
      autoRenew: true,
    });
    const { license } = await change(["seats", "auto_renew", "grace_days"], { graceDays: 1 });
    expect(license).toMatchObject({ autoRenew: false, graceDays: 1 });
    expect(license?.seats).toBeUndefined();
    await brand.licenses.cancelLicense({ ...of(licenseId), atEnd: true });
    expect((await brand.licenses.getLicense({ licenseId })).license?.cancelsAt).toBeDefined();
    const kept = (await change(["cancels_at", "metadata"])).license;
    expect(kept?.metadata).toEqual({ other: "x" });
    expect(kept?.cancelsAt).toBeUndefined();
  });

  test("of the terms of a bare license, as far as the product has them", async () => {
    const validUntil = timestampFromDate(day(90));
    const { licenseId } = await provision({ plan: "", seats: 1, validUntil });
    const change = (features: string[]) =>
      brand.licenses.updateLicense({ ...of(licenseId), updateMask: { paths: ["features"] }, features });
    expect((await change(["egx_access"])).license?.features).toEqual(["egx_access"]);
    expect((await change([])).license?.features).toEqual(["*"]);
    await expect(change(["teleport"])).rejects.toMatchObject({ reason: "FEATURE_NOT_FOUND" });
    await expect(change(["*", "egx_access"])).rejects.toMatchObject({ reason: "INVALID_FIELD" });
    const onPlan = await brand.licenses.changePlan({ ...of(licenseId), plan: "enterprise" });
    expect(onPlan.license).toMatchObject({ plan: "enterprise", type: LicenseType.ENTERPRISE, seats: 5 });
    await expect(change(["egx_access"])).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "update_mask" })],
    });
  });

  test.each([
    ["an empty mask", { updateMask: { paths: [] } }, "update_mask"],
    ["an unknown path", { updateMask: { paths: ["status"] } }, "update_mask"],
    ["a path of every object", { updateMask: { paths: ["constructor"] } }, "update_mask"],
    ["a path that JSON has no form for", { updateMask: { paths: ["hasOwnProperty"] } }, "update_mask"],
    ["no mask", {}, "update_mask"],
    [
      "too long a note",
      { updateMask: { paths: ["metadata"] }, metadata: { note: "x".repeat(513) } },
      'metadata["note"]',
    ],
    [
      "too many notes",
      {
        updateMask: { paths: ["metadata"] },
        metadata: Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`${index}`, ""])),
      },
      "metadata",
    ],
  ])("refuse %s and name the field", async (_what, fields, field) => {
    const { licenseId } = await provision();
    await expect(brand.licenses.updateLicense({ ...of(licenseId), ...fields })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field })],
    });
  });
});

describe("refusals", () => {
  test("what ended for good stays as it is", async () => {
    const { licenseId } = await provision();
    const { license } = await brand.licenses.cancelLicense({ ...of(licenseId), reason: "closed" });
    expect(license).toMatchObject({ status: LicenseStatus.CANCELLED, statusReason: "closed" });
    const end = { case: "termFrom", value: RenewFrom.NOW } as const;
    const refused = { code: "FAILED_PRECONDITION", reason: "TRANSITION_NOT_ALLOWED" };
    for (const attempt of [
      brand.licenses.renewLicense({ ...of(licenseId), end }),
      brand.licenses.changePlan({ ...of(licenseId), plan: "enterprise" }),
      brand.licenses.transferLicense({ ...of(licenseId), toCustomerId: await newCustomer() }),
      brand.licenses.updateLicense({ ...of(licenseId), updateMask: { paths: ["seats"] } }),
      brand.licenses.revokeLicense(of(licenseId)),
    ]) {
      await expect(attempt).rejects.toMatchObject({ ...refused, metadata: { from: "cancelled", allowed: "" } });
    }
    expect(await history({ licenseId })).toHaveLength(2);
  });

  test("a payment lifts what billing suspended, not what the vendor did; and is billing's to report", async () => {
    const { licenseId } = await provision();
    const stands = (standing: PaymentStanding) => billing.licenses.setPaymentStanding({ ...of(licenseId), standing });
    expect((await stands(PaymentStanding.UNPAID)).license?.status).toBe(LicenseStatus.SUSPENDED);
    expect((await stands(PaymentStanding.PAID)).license?.status).toBe(LicenseStatus.ACTIVE);
    await brand.licenses.suspendLicense({ ...of(licenseId), reason: "abuse" });
    await expect(stands(PaymentStanding.PAID)).rejects.toMatchObject({
      reason: "TRANSITION_NOT_ALLOWED",
      metadata: { from: "suspended", to: "active", allowed: "expired,cancelled,revoked" },
    });
    const own = brand.licenses.setPaymentStanding({ ...of(licenseId), standing: PaymentStanding.PAID });
    await expect(own).rejects.toMatchObject({ code: "PERMISSION_DENIED", reason: "SCOPE_MISSING" });
    const noEnd = { ...of(licenseId), standing: PaymentStanding.GRACE };
    await expect(billing.licenses.setPaymentStanding(noEnd)).rejects.toMatchObject({ reason: "INVALID_FIELD" });
  });

  test("a renewal that would end in the past, a bare one without a term, an extension of what is no trial", async () => {
    const { licenseId } = await provision({ plan: "", seats: 1, validUntil: timestampFromDate(day(1)) });
    const renewal = (value: RenewFrom, termDays: number) =>
      brand.licenses.renewLicense({ ...of(licenseId), end: { case: "termFrom", value }, termDays });
    harness.clock.now = day(10);
    await expect(renewal(RenewFrom.EXPIRY, 5)).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "term_from" })],
    });
    await expect(renewal(RenewFrom.NOW, 0)).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "term_days" })],
    });
    await expect(brand.licenses.extendTrial({ ...of(licenseId), days: 1 })).rejects.toMatchObject({
      reason: "NOT_A_TRIAL",
      metadata: { type: "custom" },
    });
    expect((await renewal(RenewFrom.NOW, 5)).license?.status).toBe(LicenseStatus.ACTIVE);
  });
});

test("the history keeps who called and with what, is the tenant's own, and can't be changed", async () => {
  const customerId = await newCustomer();
  const headers = { "user-agent": "acme-portal/7", "x-forwarded-for": "203.0.113.9" };
  const wanted = { requestId: newId(), customerId, product: "trading", plan: "yearly" };
  await brand.licenses.provisionLicense(wanted, { headers });
  const entries = await history({ customerId });
  expect(entries.map(({ cause, actor, userAgent, ipAddress }) => ({ cause, actor, userAgent, ipAddress }))).toEqual([
    { cause: LicenseChangeCause.CUSTOMER_CREATED, actor: "key-of-tradsys", userAgent: "", ipAddress: "" },
    { cause: LicenseChangeCause.PROVISIONED, actor: "key-of-tradsys", userAgent: "acme-portal/7", ipAddress: "" },
  ]);
  const other = await seedTenant(harness, "curious");
  const holder = { case: "customerId", value: customerId } as const;
  expect((await other.licenses.listLicenseEvents({ holder })).entries).toEqual([]);
  const foreign = brand.licenses.listLicenseEvents({ holder, pageToken: "x" });
  await expect(foreign).rejects.toMatchObject({ violations: [expect.objectContaining({ field: "page_token" })] });
  const { app } = harness.database.databases;
  await expect(app.deleteFrom("license_history").execute()).rejects.toMatchObject({ code: "42501" });
  await expect(app.updateTable("license_history").set({ reason: "" }).execute()).rejects.toMatchObject({
    code: "42501",
  });
  expect(await isolationBreaches(harness.database)).toEqual([]);
});

test("a page holds what can be sent: long notes make it shorter", async () => {
  const notes = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`note-${index}`, "x".repeat(512)]));
  const { licenseId } = await provision({ metadata: notes });
  for (let index = 0; index < 15; index++) {
    const request = { ...of(licenseId), updateMask: { paths: ["seats"] }, seats: index };
    await brand.licenses.updateLicense(request);
  }
  const holder = { case: "licenseId", value: licenseId } as const;
  const first = await brand.licenses.listLicenseEvents({ holder });
  expect(first.entries.length).toBeLessThan(16);
  expect(first.nextPageToken).not.toBe("");
  expect(await history({ licenseId })).toHaveLength(16);
});
