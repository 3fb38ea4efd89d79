import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { type HeartbeatResponse, KeyReason } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { KeyFormat, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { SeatChangeCause, SeatChangedSchema } from "@licet/contracts/licet/licensing/v1/seat_events_pb";
import {
  type InstanceSchema,
  InstanceType,
  SeatMode,
  type SeatPolicySchema,
  SeatsBelowUse,
} from "@licet/contracts/licet/licensing/v1/seat_pb";
import { inTenant } from "@licet/platform/database/database";
import { ServiceError } from "@licet/platform/errors";
import { newId } from "@licet/platform/ids";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import type { Context } from "../src/context.ts";
import { newOpaqueKey } from "../src/domain/opaque-key.ts";
import { checkNoSeatTaken } from "../src/seats.ts";
import { getLicense } from "../src/store/licenses.ts";
import { statementTime } from "../src/store/time.ts";
import { type Clients, type Harness, startHarness, untilOneWaits } from "./harness.ts";

type Instance = MessageInitShape<typeof InstanceSchema>;

let harness: Harness;
let brand: Clients;

const { URL: url, HOSTNAME, MACHINE_ID, DEPLOYMENT } = InstanceType;
const products: Readonly<Record<string, MessageInitShape<typeof SeatPolicySchema>>> = {
  sites: { instanceTypes: [url], ignoreWww: true },
  machines: { instanceTypes: [MACHINE_ID, HOSTNAME], minMatchingComponents: 2, belowUse: SeatsBelowUse.BLOCK },
  floating: { mode: SeatMode.FLOATING, leaseSeconds: 60 },
};

beforeAll(async () => {
  harness = await startHarness();
  await tenant("brand", "BR");
  brand = harness.as("brand", "admin");
});
afterAll(() => harness.stop());

/** A tenant with all products; their plan `basic` has 2 seats, `solo` has 1 and `free` any number. */
async function tenant(tenantId: string, keyPrefix: string): Promise<void> {
  await harness.as("_platform", "operator").tenants.createTenant({ requestId: newId(), tenantId, name: tenantId });
  const admin = harness.as(tenantId, "admin");
  const keys = { keyFormat: KeyFormat.OPAQUE, keyPrefix, offlineDays: 3 };
  for (const [product, seatPolicy] of Object.entries(products)) {
    await admin.catalog.createProduct({ requestId: newId(), product, name: product, ...keys, seatPolicy });
    for (const [plan, seats] of Object.entries({ solo: { seats: 1 }, basic: { seats: 2 }, free: {} })) {
      const terms = { type: LicenseType.STANDARD, features: ["*"], ...seats };
      await admin.catalog.createPlan({ requestId: newId(), product, plan, name: plan, terms });
    }
  }
}

/** A license of a new customer with a key of its own. */
async function sell(product: string, plan = "basic", of = brand, addOns: { addOn: string; quantity: number }[] = []) {
  const { customer } = await of.customers.createCustomer({ requestId: newId(), name: "C" });
  const customerId = customer?.customerId ?? "";
  const { license, keySecret, key } = await of.licenses.provisionLicense({
    requestId: newId(),
    customerId,
    product,
    plan,
    addOns,
    key: { case: "issueKey", value: true },
  });
  return { customerId, product, key: keySecret, keyId: key?.keyId ?? "", licenseId: license?.licenseId ?? "" };
}

type Sold = Awaited<ReturnType<typeof sell>>;

const site = (id: string): Instance => ({ type: url, id });
const host = (id: string): Instance => ({ type: HOSTNAME, id });

function activate({ key, product }: Pick<Sold, "key" | "product">, instance: Instance, more = {}) {
  return harness.installed.activateInstance({ requestId: newId(), key, product, instance, ...more });
}
function heartbeat({ key, product }: Sold, instance: Instance, more = {}) {
  return harness.installed.heartbeat({ requestId: newId(), key, product, instance, ...more });
}
function deactivate({ key, product }: Sold, instance: Instance, requestId = newId()) {
  return harness.installed.deactivateInstance({ requestId, key, product, instance });
}
function check({ key, product }: Sold, instance?: Instance) {
  return harness.installed.checkKey({ key, product, ...(instance && { instance }) });
}
/** Asks again whenever too many ask at once, as clients do. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ServiceError && error.reason === "OVERLOADED")) throw error;
    }
    await new Promise(setImmediate);
  }
}

const held = async ({ licenseId }: Sold) => (await brand.activations.listActivations({ licenseId })).activations;
const forward = (ms: number) => {
  harness.clock.now = new Date(harness.clock.now.getTime() + ms);
};

/** Enough of a context to end leases in. */
const contextOfLeases = () => ({ leaseClock: () => statementTime }) as Context;

/** The events of a license's seats as they were published, oldest first. */
async function changesOf({ licenseId }: Sold) {
  await harness.licensing.drain();
  return harness.published
    .filter(({ topic }) => topic === "licet.seats.v1")
    .map((record) => ({ ...record, message: fromBinary(SeatChangedSchema, record.value) }))
    .filter(({ message }) => message.licenseId === licenseId);
}

describe("a seat", () => {
  test("is taken, is the same for the same instance however it is written, and is given back", async () => {
    const sold = await sell("sites");
    const first = await activate(sold, site("https://www.Example.com/shop/"), { version: "6.1", displayName: "Shop" });
    expect(first).toMatchObject({
      valid: true,
      reason: KeyReason.PERMITTED,
      activation: {
        licenseId: sold.licenseId,
        instanceType: url,
        instanceId: "example.com/shop",
        version: "6.1",
        displayName: "Shop",
      },
      seats: { used: 1, maximum: 2 },
      license: { licenseId: sold.licenseId, metadata: {} },
      offlineDays: 3,
      heartbeatSeconds: 0,
    });
    expect(first.activation?.leaseExpiresAt).toBeUndefined();
    const again = await activate(sold, site("http://example.com:80/shop"), { version: "6.2" });
    expect(again).toMatchObject({
      valid: true,
      activation: { activationId: first.activation?.activationId, version: "6.2", displayName: "Shop" },
      seats: { used: 1, maximum: 2 },
    });
    expect(await deactivate(sold, site("example.com/shop"))).toMatchObject({
      deactivated: true,
      reason: KeyReason.PERMITTED,
      seats: { used: 0, maximum: 2 },
    });
    expect(await deactivate(sold, site("example.com/shop"))).toMatchObject({
      deactivated: false,
      reason: KeyReason.NOT_ACTIVATED,
    });
    expect(await held(sold)).toEqual([]);
  });

  test("that is not there is a denial that says who holds them all, and can be asked for again", async () => {
    const sold = await sell("sites");
    await activate(sold, site("a.example"), { displayName: "A" });
    forward(1_000);
    await activate(sold, site("b.example"));
    const requestId = newId();
    const wanted = { requestId, key: sold.key, product: sold.product, instance: site("c.example") };
    const denied = await harness.installed.activateInstance(wanted);
    expect(denied).toMatchObject({
      valid: false,
      reason: KeyReason.SEATS_EXHAUSTED,
      message: "All seats of the license of sites are taken.",
      seats: { used: 2, maximum: 2 },
      holders: [{ instanceId: "a.example", displayName: "A" }, { instanceId: "b.example" }],
    });
    expect(denied.activation).toBeUndefined();
    await deactivate(sold, site("a.example"));
    expect(await harness.installed.activateInstance(wanted)).toMatchObject({ valid: true, seats: { used: 2 } });
    expect(await changesOf(sold)).toHaveLength(4);
  });

  test("is shown to who checks the key, and in lists of licenses", async () => {
    const sold = await sell("sites");
    expect(await check(sold, site("a.example"))).toMatchObject({
      valid: false,
      reason: KeyReason.NOT_ACTIVATED,
      seats: { used: 0, maximum: 2 },
    });
    const { activation } = await activate(sold, site("a.example"));
    const checked = await check(sold, site("https://A.example/"));
    expect(checked).toMatchObject({
      valid: true,
      reason: KeyReason.PERMITTED,
      activation: { activationId: activation?.activationId },
      seats: { used: 1, maximum: 2 },
    });
    expect(await check(sold)).toMatchObject({ valid: true, seats: { used: 1, maximum: 2 } });
    const { license } = await brand.licenses.getLicense({ licenseId: sold.licenseId });
    expect(license).toMatchObject({ seats: 2, seatsUsed: 1, etag: "1" });
    const holder = { case: "customerId", value: sold.customerId } as const;
    expect((await brand.licenses.listLicenses({ holder })).licenses).toMatchObject([{ seatsUsed: 1 }]);
    const other = await sell("sites");
    expect((await brand.licenses.getLicense({ licenseId: other.licenseId })).license?.seatsUsed).toBe(0);
  });

  test("unlimited seats are taken and counted, and neither etag nor entitlement version changes", async () => {
    const sold = await sell("machines", "free");
    const before = await brand.licenses.listLicenseEvents({ holder: { case: "licenseId", value: sold.licenseId } });
    for (let index = 0; index < 5; index++) await activate(sold, host(`host-${index}`));
    const { seats, activations } = await brand.activations.listActivations({ licenseId: sold.licenseId });
    expect(seats).toMatchObject({ used: 5 });
    expect(seats?.maximum).toBeUndefined();
    expect(activations).toHaveLength(5);
    expect(await brand.licenses.listLicenseEvents({ holder: { case: "licenseId", value: sold.licenseId } })).toEqual(
      before,
    );
  });
});

describe("keys and licenses that permit nothing", () => {
  test("each has its reason, and nothing is taken", async () => {
    const sold = await sell("sites");
    const reasonOf = async (key: string, product = "sites") =>
      (await activate({ key, product }, site("a.example"))).reason;
    const typo = sold.key.slice(0, -1) + (sold.key.endsWith("0") ? "1" : "0");
    expect(await reasonOf("nonsense")).toBe(KeyReason.MALFORMED);
    expect(await reasonOf(typo)).toBe(KeyReason.MISTYPED);
    expect(await reasonOf(newOpaqueKey("BR", new Uint8Array(10)))).toBe(KeyReason.UNKNOWN);
    expect(await reasonOf(sold.key, "other")).toBe(KeyReason.WRONG_BRAND);
    expect(await reasonOf(sold.key, "machines")).toBe(KeyReason.PRODUCT_NOT_INCLUDED);
    await brand.licenses.suspendLicense({ requestId: newId(), licenseId: sold.licenseId, reason: "x" });
    expect(await activate(sold, site("a.example"))).toMatchObject({
      valid: false,
      reason: KeyReason.LICENSE_SUSPENDED,
      seats: { used: 0, maximum: 2 },
    });
    expect(await heartbeat(sold, site("a.example"))).toMatchObject({
      valid: false,
      reason: KeyReason.LICENSE_SUSPENDED,
    });
    await brand.keys.revokeKey({ requestId: newId(), keyId: sold.keyId, reason: "leaked" });
    expect(await reasonOf(sold.key)).toBe(KeyReason.REVOKED);
    expect(await deactivate(sold, site("a.example"))).toMatchObject({ deactivated: false, reason: KeyReason.REVOKED });
    expect(await held(sold)).toEqual([]);
  });

  test("a key that was revoked is told nothing of the license and its seats any more", async () => {
    const sold = await sell("sites");
    await activate(sold, site("a.example"));
    expect(await check(sold, site("a.example"))).toMatchObject({ license: { plan: "basic" }, seats: { used: 1 } });
    await brand.keys.revokeKey({ requestId: newId(), keyId: sold.keyId, reason: "leaked" });
    for (const answer of [await check(sold, site("a.example")), await activate(sold, site("b.example"))]) {
      expect(answer).toMatchObject({ valid: false, reason: KeyReason.REVOKED });
      expect([answer.license, answer.seats, answer.activation]).toEqual([undefined, undefined, undefined]);
    }
  });

  test("a seat of a suspended license can be given back", async () => {
    const sold = await sell("sites");
    await activate(sold, site("a.example"));
    await brand.licenses.suspendLicense({ requestId: newId(), licenseId: sold.licenseId, reason: "x" });
    expect(await check(sold, site("a.example"))).toMatchObject({ valid: false, reason: KeyReason.LICENSE_SUSPENDED });
    expect(await deactivate(sold, site("a.example"))).toMatchObject({ deactivated: true, seats: { used: 0 } });
  });

  test.each([
    ["instance.id", { type: url, id: "ftp://a.example" }],
    ["instance.id", { type: url, id: "https://user@a.example" }],
    ["instance.id", { type: url, id: "https://a.example/?x=1" }],
    ["instance.type", host("a")],
    ["instance", { type: url }],
    ["instance", { type: MACHINE_ID, id: "a", components: { cpu: "x" } }],
    ["instance", { type: url, components: { cpu: "x" } }],
  ] as const)("%s of %j is refused by its name, and nothing is written", async (field, instance) => {
    const sold = await sell("sites");
    for (const call of [activate, heartbeat, deactivate, check]) {
      await expect(call(sold, instance)).rejects.toMatchObject({
        reason: "INVALID_FIELD",
        violations: [{ field: expect.stringContaining(field) }],
      });
    }
    expect(await held(sold)).toEqual([]);
  });
});

describe("leases", () => {
  const process = (id: string): Instance => ({ type: DEPLOYMENT, id });

  test("go on by heartbeats and end in silence: the seat is another's then", async () => {
    const sold = await sell("floating", "solo");
    const first = await activate(sold, process("p1"), { version: "1" });
    expect(first).toMatchObject({ valid: true, heartbeatSeconds: 20, activation: { deploymentId: "p1" } });
    const leaseOf = (answer: Pick<HeartbeatResponse, "activation">) =>
      answer.activation?.leaseExpiresAt &&
      timestampDate(answer.activation.leaseExpiresAt).getTime() - +harness.clock.now;
    expect(leaseOf(first)).toBe(60_000);
    forward(59_000);
    expect(await activate(sold, process("p2"))).toMatchObject({ valid: false, reason: KeyReason.SEATS_EXHAUSTED });
    const beat = await heartbeat(sold, process("p1"), { version: "2" });
    expect(beat).toMatchObject({
      valid: true,
      activation: { version: "2", activationId: first.activation?.activationId },
    });
    expect(leaseOf(beat)).toBe(60_000);
    forward(60_000);
    expect(await heartbeat(sold, process("p1"))).toMatchObject({ valid: false, reason: KeyReason.NOT_ACTIVATED });
    expect(await check(sold, process("p1"))).toMatchObject({ valid: false, reason: KeyReason.NOT_ACTIVATED });
    const second = await activate(sold, process("p2"));
    expect(second).toMatchObject({ valid: true, seats: { used: 1, maximum: 1 } });
    expect((await changesOf(sold)).map(({ message }) => [message.cause, message.activation?.instanceId])).toEqual([
      [SeatChangeCause.ACTIVATED, "p1"],
      [SeatChangeCause.LEASE_EXPIRED, "p1"],
      [SeatChangeCause.ACTIVATED, "p2"],
    ]);
  });

  test("that are over are ended by the scheduler too, and who activates again gets a new seat", async () => {
    const sold = await sell("floating");
    const first = await activate(sold, process("p1"));
    await activate(sold, process("p2"));
    // The clock of this instance is ahead, so that the suite's own scheduler, which looks each second, ends none before.
    const later = () => new Date(+harness.clock.now + 60_000);
    const ahead = harness.instance({ now: later, schedulerNow: later });
    const { key, product } = sold;
    const again = { requestId: newId(), key, product, instance: process("p1") };
    const renewed = await harness.installedOf(ahead).activateInstance(again);
    expect(renewed.activation?.activationId).not.toBe(first.activation?.activationId);
    expect(renewed).toMatchObject({ valid: true, seats: { used: 2 } });
    await ahead.settle();
    await ahead.stop();
    forward(60_000);
    expect(await held(sold)).toMatchObject([{ instanceId: "p1" }]);
    const changes = await changesOf(sold);
    expect(changes.map(({ message }) => Number(message.version))).toEqual([1, 2, 3, 4, 5]);
    expect(changes.map(({ message }) => message.seats?.used)).toEqual([1, 2, 1, 2, 1]);
    expect(changes.at(-1)?.message).toMatchObject({ cause: SeatChangeCause.LEASE_EXPIRED, actor: "scheduler" });
    expect(await deactivate(sold, process("p2"))).toMatchObject({ deactivated: false });
  });

  test("that a heartbeat is just renewing are not ended by who waited for it", async () => {
    const sold = await sell("floating");
    await activate(sold, process("p1"));
    // As a heartbeat does that began in time and has not committed when the lease is over.
    await harness.database.asSuperuser(async (client) => {
      const renewal = "UPDATE activation SET lease_until = $1 WHERE license_id = $2";
      await client.query("BEGIN");
      await client.query(renewal, [new Date(+harness.clock.now + 120_000), sold.licenseId]);
      // Not earlier: the scheduler, which looks each second, would end the lease before the renewal has it locked.
      forward(60_000);
      const settled = harness.licensing.settle();
      await untilOneWaits(harness.database);
      await client.query("COMMIT");
      await settled;
    });
    expect(await held(sold)).toMatchObject([{ instanceId: "p1" }]);
    expect(await heartbeat(sold, process("p1"))).toMatchObject({ valid: true });
    expect((await activate(sold, process("p2"))).seats).toMatchObject({ used: 2 });
  });

  test("by the hundred are ended in batches", async () => {
    const sold = await sell("floating", "free");
    for (let from = 0; from < 210; from += 30) {
      await Promise.all(Array.from({ length: 30 }, (_, index) => activate(sold, process(`p${from + index}`))));
    }
    forward(60_000);
    expect(await activate(sold, process("p200"))).toMatchObject({ valid: true });
    await harness.licensing.settle();
    expect(await held(sold)).toMatchObject([{ instanceId: "p200" }]);
    const versions = (await changesOf(sold)).map(({ message }) => Number(message.version));
    expect(versions).toEqual(Array.from({ length: 421 }, (_, index) => index + 1));
  });
});

describe("machines by components", () => {
  const machine = (components: Record<string, string>): Instance => ({ type: MACHINE_ID, components });

  test("are the same by as many equal ones as the product wants, and follow their parts", async () => {
    const sold = await sell("machines");
    const built = await activate(sold, machine({ cpu: "C1", disk: "D1", mac: "00:1A:2B:3C:4D:5E" }));
    expect(built).toMatchObject({ valid: true, activation: { components: ["cpu", "disk", "mac"] } });
    const newDisk = await activate(sold, machine({ cpu: "c1", disk: "d2", mac: "001a2b3c4d5e" }));
    expect(newDisk.activation?.activationId).toBe(built.activation?.activationId);
    // Two of three as it is now, though one of three as it was first.
    const newCard = { cpu: "c1", disk: "d2", mac: "00-00-00-00-00-02" };
    expect(await heartbeat(sold, machine(newCard))).toMatchObject({ valid: true });
    const other = await activate(sold, machine({ cpu: "c1", disk: "d9", mac: "00:00:00:00:00:09" }));
    expect(other).toMatchObject({ valid: true, seats: { used: 2 } });
    expect(other.activation?.activationId).not.toBe(built.activation?.activationId);
    await expect(activate(sold, machine({ cpu: "c1" }))).rejects.toMatchObject({
      violations: [{ field: "instance.components", description: expect.stringContaining("at least 2") }],
    });
    expect(await deactivate(sold, machine({ cpu: "c1", disk: "d2" }))).toMatchObject({ deactivated: true });
    expect(await held(sold)).toMatchObject([{ activationId: other.activation?.activationId }]);
  });

  test("one that is exactly known goes before others that are as much like it", async () => {
    const sold = await sell("machines");
    const larger = await activate(sold, machine({ cpu: "c1", disk: "d3", mac: "m3" }));
    const smaller = await activate(sold, machine({ cpu: "c1", disk: "d2" }));
    // The older of the two that are equally like it; from now on it has all that the other has.
    const grown = await activate(sold, machine({ cpu: "c1", disk: "d2", mac: "m3" }));
    expect(grown.activation?.activationId).toBe(larger.activation?.activationId);
    const again = await activate(sold, machine({ cpu: "c1", disk: "d2" }));
    expect(again.activation?.activationId).toBe(smaller.activation?.activationId);
  });

  test("many at once of one machine whose parts differ a little take one seat", async () => {
    const sold = await sell("machines", "free");
    const parts = { a: "1", b: "2", c: "3", d: "4", e: "5", f: "6" };
    const answers = await Promise.all(
      Object.keys(parts).map((name) => activate(sold, machine({ ...parts, [name]: "other" }))),
    );
    expect(new Set(answers.map(({ activation }) => activation?.activationId)).size).toBe(1);
    expect((await held(sold)).length).toBe(1);
  });
});

describe("fewer seats than are taken", () => {
  const lower = ({ licenseId }: Sold, seats: number) =>
    brand.licenses.updateLicense({ requestId: newId(), licenseId, updateMask: { paths: ["seats"] }, seats });

  test("are refused where the product wants that, by UpdateLicense and by ChangePlan", async () => {
    const sold = await sell("sites");
    await activate(sold, site("a.example"));
    await activate(sold, site("b.example"));
    const refused = { reason: "SEATS_IN_USE", code: "FAILED_PRECONDITION", metadata: { used: "2", maximum: "1" } };
    await expect(lower(sold, 1)).rejects.toMatchObject(refused);
    const { licenseId } = sold;
    const solo = () => brand.licenses.changePlan({ requestId: newId(), licenseId, plan: "solo" });
    await expect(solo()).rejects.toMatchObject(refused);
    expect((await brand.licenses.getLicense({ licenseId })).license).toMatchObject({ seats: 2, plan: "basic" });
    await deactivate(sold, site("a.example"));
    expect((await solo()).license).toMatchObject({ seats: 1 });
    expect(await activate(sold, site("a.example"))).toMatchObject({ valid: false, seats: { used: 1, maximum: 1 } });
    await lower(sold, 3);
    expect(await activate(sold, site("a.example"))).toMatchObject({ valid: true, seats: { used: 2, maximum: 3 } });
  });

  test("are allowed where it says so: who has a seat keeps it, and new ones wait until fewer are taken", async () => {
    const sold = await sell("machines");
    await activate(sold, host("a"));
    await activate(sold, host("b"));
    expect((await lower(sold, 1)).license).toMatchObject({ seats: 1 });
    expect(await activate(sold, host("c"))).toMatchObject({ valid: false, seats: { used: 2, maximum: 1 } });
    expect(await activate(sold, host("A"))).toMatchObject({ valid: true, seats: { used: 2, maximum: 1 } });
    await deactivate(sold, host("a"));
    expect(await activate(sold, host("c"))).toMatchObject({ valid: false, seats: { used: 1, maximum: 1 } });
    await deactivate(sold, host("b"));
    expect(await activate(sold, host("c"))).toMatchObject({ valid: true, seats: { used: 1, maximum: 1 } });
  });

  test("seats that add-ons give are seats like others", async () => {
    const [product, addOn] = ["sites", "more-sites"];
    const terms = { seats: 2, offers: [{ plan: "solo", pricing: { case: "free", value: true } as const }] };
    await brand.catalog.createAddOn({ requestId: newId(), product, addOn, name: addOn, terms });
    const sold = await sell("sites", "solo");
    const { licenseId } = sold;
    await activate(sold, site("a.example"));
    expect(await activate(sold, site("b.example"))).toMatchObject({ valid: false, seats: { used: 1, maximum: 1 } });
    const order = (quantity: number) =>
      brand.licenses.updateLicense({
        requestId: newId(),
        licenseId,
        updateMask: { paths: ["add_ons"] },
        addOns: quantity === 0 ? [] : [{ addOn, quantity }],
      });
    expect((await order(2)).license?.seats).toBe(5);
    for (const id of ["b.example", "c.example"]) {
      expect(await activate(sold, site(id))).toMatchObject({ valid: true, seats: { maximum: 5 } });
    }
    await expect(order(0)).rejects.toMatchObject({ reason: "SEATS_IN_USE", metadata: { used: "3", maximum: "1" } });
    expect((await order(1)).license?.seats).toBe(3);
    expect(await activate(sold, site("d.example"))).toMatchObject({ valid: false, seats: { used: 3, maximum: 3 } });
    // Also where its first seat is asked for after it was sold with them.
    const other = await sell("sites", "solo", brand, [{ addOn, quantity: 1 }]);
    expect(await activate(other, site("a.example"))).toMatchObject({ valid: true, seats: { used: 1, maximum: 3 } });
  });

  test("leases that are over don't count", async () => {
    const sold = await sell("floating");
    for (const id of ["p1", "p2"]) await activate(sold, { type: DEPLOYMENT, id });
    await expect(lower(sold, 0)).rejects.toMatchObject({ reason: "SEATS_IN_USE" });
    forward(60_000);
    expect((await lower(sold, 0)).license).toMatchObject({ seats: 0 });
    expect(await held(sold)).toEqual([]);
  });

  test("a license whose seats are taken is not given to another customer", async () => {
    const sold = await sell("sites");
    await activate(sold, site("a.example"));
    await brand.keys.revokeKey({ requestId: newId(), keyId: sold.keyId, reason: "moves" });
    const to = await sell("sites");
    const { licenseId } = sold;
    const transfer = () =>
      brand.licenses.transferLicense({ requestId: newId(), licenseId, toCustomerId: to.customerId });
    await expect(transfer()).rejects.toMatchObject({ reason: "SEATS_IN_USE", metadata: { used: "1", maximum: "0" } });
    const [seat] = await held(sold);
    await brand.activations.releaseActivation({
      requestId: newId(),
      licenseId,
      activationId: seat?.activationId ?? "",
    });
    expect((await transfer()).license).toMatchObject({ customerId: to.customerId });
  });

  test("whoever asks for the first seat of a license while it is given away waits, and finds it gone", async () => {
    const sold = await sell("sites");
    const { customerId: toCustomerId } = await sell("sites");
    const { licenseId } = sold;
    const { databases } = harness.database;
    let asking: Promise<unknown> = Promise.resolve();
    await inTenant(databases, "brand", async (tx) => {
      await checkNoSeatTaken(contextOfLeases(), tx, "brand", await getLicense(tx, "brand", licenseId));
      asking = activate(sold, site("a.example")).catch((error: unknown) => error);
      await untilOneWaits(harness.database);
      await tx.updateTable("license").set({ customer_id: toCustomerId }).where("license_id", "=", licenseId).execute();
    });
    expect(await asking).toMatchObject({ reason: "CONFLICT_RETRY" });
    expect(await held(sold)).toEqual([]);
  });
});

test("a product's seat policy is told, and changed as a whole: who holds a seat keeps it, and gets a lease when heard", async () => {
  const product = "changing";
  const { catalog } = brand;
  const keys = { keyFormat: KeyFormat.OPAQUE, keyPrefix: "BR" };
  const created = await catalog.createProduct({ requestId: newId(), product, name: product, ...keys });
  expect(created.product?.seatPolicy).toMatchObject({ mode: SeatMode.NODE_LOCKED, leaseSeconds: 0, instanceTypes: [] });
  const terms = { type: LicenseType.STANDARD, features: ["*"], seats: 1 };
  await catalog.createPlan({ requestId: newId(), product, plan: "basic", name: "Basic", terms });
  const sold = await sell(product);
  await activate(sold, host("a"));
  const updateMask = { paths: ["seat_policy"] };
  const seatPolicy = { mode: SeatMode.FLOATING, leaseSeconds: 60, instanceTypes: [HOSTNAME], ignoreWww: true };
  const updated = await catalog.updateProduct({ requestId: newId(), product, updateMask, seatPolicy });
  expect(updated.product?.seatPolicy).toMatchObject({ ...seatPolicy, belowUse: SeatsBelowUse.REFUSE });
  forward(120_000);
  expect(await activate(sold, host("b"))).toMatchObject({ valid: false });
  expect(await heartbeat(sold, host("a"))).toMatchObject({ valid: true, heartbeatSeconds: 20 });
  forward(60_000);
  expect(await activate(sold, host("b"))).toMatchObject({ valid: true });
});

test("an instance that a changed rule writes in another way is another one, and what it held is there to be released", async () => {
  const product = "renamed";
  const { catalog, activations } = brand;
  const keys = { keyFormat: KeyFormat.OPAQUE, keyPrefix: "BR" };
  await catalog.createProduct({ requestId: newId(), product, name: product, ...keys });
  const terms = { type: LicenseType.STANDARD, features: ["*"], seats: 1 };
  await catalog.createPlan({ requestId: newId(), product, plan: "basic", name: "Basic", terms });
  const sold = await sell(product);
  await activate(sold, site("www.a.example"));
  const updateMask = { paths: ["seat_policy"] };
  await catalog.updateProduct({ requestId: newId(), product, updateMask, seatPolicy: { ignoreWww: true } });
  expect(await check(sold, site("www.a.example"))).toMatchObject({ valid: false, reason: KeyReason.NOT_ACTIVATED });
  const { reason, holders } = await activate(sold, site("www.a.example"));
  expect([reason, holders.map(({ instanceId }) => instanceId)]).toEqual([KeyReason.SEATS_EXHAUSTED, ["www.a.example"]]);
  const activationId = holders[0]?.activationId ?? "";
  await activations.releaseActivation({ requestId: newId(), licenseId: sold.licenseId, activationId });
  expect(await activate(sold, site("www.a.example"))).toMatchObject({ activation: { instanceId: "a.example" } });
});

test.each([
  ["seat_policy", { mode: SeatMode.FLOATING }, "lease_seconds is required for floating seats"],
  ["seat_policy", { leaseSeconds: 9 }, "lease_seconds must be 0 or at least 10"],
  ["seat_policy.min_matching_components", { minMatchingComponents: 17 }, "16"],
] as const)("%s %j is refused", async (field, seatPolicy, description) => {
  const product = { requestId: newId(), product: "refused", name: "refused", seatPolicy };
  await expect(brand.catalog.createProduct(product)).rejects.toMatchObject({
    reason: "INVALID_FIELD",
    violations: [{ field, description: expect.stringContaining(description) }],
  });
});

describe("the vendor", () => {
  test("lists who holds seats page by page, and those silent for long", async () => {
    const sold = await sell("machines", "free");
    for (const id of ["a", "b", "c"]) {
      await activate(sold, host(id), { deploymentId: "cluster-1" });
      forward(60_000);
    }
    const before = harness.clock.now;
    forward(9 * 86_400_000);
    await heartbeat(sold, host("c"), { deploymentId: "cluster-2" });
    const { licenseId } = sold;
    const first = await brand.activations.listActivations({ licenseId, pageSize: 2 });
    expect(first.activations.map(({ instanceId }) => instanceId)).toEqual(["a", "b"]);
    const second = await brand.activations.listActivations({ licenseId, pageSize: 2, pageToken: first.nextPageToken });
    expect(second).toMatchObject({ activations: [{ instanceId: "c", deploymentId: "cluster-2" }], nextPageToken: "" });
    const lastSeenBefore = timestampFromDate(before);
    const silent = await brand.activations.listActivations({ licenseId, lastSeenBefore });
    expect(silent.activations.map(({ instanceId }) => instanceId)).toEqual(["a", "b"]);
    await expect(brand.activations.listActivations({ licenseId: newId() })).rejects.toMatchObject({
      reason: "LICENSE_NOT_FOUND",
    });
  });

  test("frees a seat, once, and the event says who and why", async () => {
    const sold = await sell("sites");
    const { activation } = await activate(sold, site("a.example"));
    const asked = {
      requestId: newId(),
      licenseId: sold.licenseId,
      activationId: activation?.activationId ?? "",
      reason: "ticket 7",
    };
    const released = await brand.activations.releaseActivation(asked);
    expect(released).toMatchObject({ activation: { instanceId: "a.example" }, seats: { used: 0, maximum: 2 } });
    expect(await brand.activations.releaseActivation(asked)).toEqual(released);
    await expect(brand.activations.releaseActivation({ ...asked, requestId: newId() })).rejects.toMatchObject({
      reason: "ACTIVATION_NOT_FOUND",
      code: "NOT_FOUND",
    });
    expect(await heartbeat(sold, site("a.example"))).toMatchObject({ valid: false, reason: KeyReason.NOT_ACTIVATED });
    const changes = await changesOf(sold);
    expect(changes.map(({ key, headers, message }) => [key, headers.ce_type, message.actor, message.reason])).toEqual([
      [`brand/${sold.customerId}`, "licet.seat.activated.v1", sold.keyId, ""],
      [`brand/${sold.customerId}`, "licet.seat.released.v1", "key-of-brand", "ticket 7"],
    ]);
    expect(JSON.stringify(changes.map(({ value }) => Buffer.from(value).toString("latin1")))).not.toContain(sold.key);
  });

  test("needs the scope", async () => {
    const { licenseId } = await sell("sites");
    const product = harness.as("brand", "product").activations;
    await expect(product.listActivations({ licenseId })).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
    const viewer = harness.as("brand", "viewer").activations;
    const release = { requestId: newId(), licenseId, activationId: newId() };
    await expect(viewer.releaseActivation(release)).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
  });
});

describe("request ids", () => {
  test("a repetition takes no second seat and gets the same reply, also 100 at once", async () => {
    const sold = await sell("sites");
    const wanted = { requestId: newId(), key: sold.key, product: "sites", instance: site("a.example") };
    const asked = Array.from({ length: 100 }, () => patiently(() => harness.installed.activateInstance(wanted)));
    const answers = await Promise.all(asked);
    expect(answers.every((answer) => answer.valid)).toBe(true);
    expect(answers.map(({ activation }) => activation)).toEqual(answers.map(() => answers[0]?.activation));
    expect(await changesOf(sold)).toHaveLength(1);
    await expect(harness.installed.activateInstance({ ...wanted, instance: site("b.example") })).rejects.toMatchObject({
      reason: "REQUEST_ID_REUSED",
    });
    const given = newId();
    expect(await deactivate(sold, site("a.example"), given)).toMatchObject({ deactivated: true });
    await activate(sold, site("a.example"));
    expect(await deactivate(sold, site("a.example"), given)).toMatchObject({ deactivated: true });
    expect((await held(sold)).length).toBe(1);
  });

  test("are each key's own: what another customer called alike is no repetition", async () => {
    const [one, other] = [await sell("sites"), await sell("sites")];
    for (const sold of [one, other]) {
      const instance = site(`${sold.licenseId}.example`);
      const wanted = { requestId: "activate", key: sold.key, product: "sites", instance };
      expect(await harness.installed.activateInstance(wanted)).toMatchObject({
        valid: true,
        activation: { licenseId: sold.licenseId },
      });
    }
  });
});

test("rows of seats are shown to no other tenant, nor without one", async () => {
  await activate(await sell("machines"), { type: MACHINE_ID, components: { cpu: "x1", disk: "y1" } });
  expect(await isolationBreaches(harness.database)).toEqual([]);
  await inTenant(harness.database.databases, "another", async (tx) => {
    for (const table of ["license_seats", "activation", "activation_component"] as const) {
      expect(await tx.selectFrom(table).selectAll().execute()).toEqual([]);
    }
  });
});
