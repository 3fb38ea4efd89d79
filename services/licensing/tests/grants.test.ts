import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { KeyFormat, LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { ConsistencyToken } from "@licet/contracts/licet/licensing/v1/customer_pb";
import type { LicenseHistoryEntry } from "@licet/contracts/licet/licensing/v1/license_history_pb";
import type { Grant, License } from "@licet/contracts/licet/licensing/v1/license_pb";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { ProvisionLicenseRequest } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import { type Clients, type Harness, seedTenant, startHarness } from "./harness.ts";

const DAY_MS = 86_400_000;
const start = new Date("2026-11-22T10:00:00Z");
const day = (count: number) => timestampFromDate(new Date(start.getTime() + count * DAY_MS));

/** The features of the product that only grants give. */
const extras = Array.from({ length: 60 }, (_, index) => `extra_${index}`);

let harness: Harness;
let brand: Clients;

beforeAll(async () => {
  harness = await startHarness();
  brand = await seedTenant(harness, "tradsys");
  for (const feature of extras) {
    await brand.catalog.createFeature({ requestId: newId(), product: "trading", feature, name: feature });
  }
  await plan("open", ["basic_trading"], ["*"]);
  await plan("narrow", ["basic_trading", "extra_1"], ["extra_0"]);
});
afterAll(() => harness.stop());
beforeEach(() => {
  harness.clock.now = start;
});

async function plan(code: string, features: string[], grantableFeatures: string[]): Promise<void> {
  const terms = { type: LicenseType.STANDARD, features, grantableFeatures };
  await brand.catalog.createPlan({ requestId: newId(), product: "trading", plan: code, name: code, terms });
}

async function newCustomer(): Promise<string> {
  const { customer } = await brand.customers.createCustomer({ requestId: newId(), name: "C" });
  return customer?.customerId as string;
}

/** What both changes answer. */
interface Reply {
  license?: License | undefined;
  consistencyToken?: ConsistencyToken | undefined;
}

/** A license of a customer of its own. */
async function provision(changes: Partial<Omit<ProvisionLicenseRequest, "$typeName" | "$unknown">> = {}) {
  const customerId = await newCustomer();
  const wanted = { requestId: newId(), customerId, product: "trading", plan: "open", ...changes };
  const { license } = await brand.licenses.provisionLicense(wanted);
  if (!license) throw new Error("the reply has no license");
  return license;
}

/** The request of a change of a license. */
const of = (licenseId: string, feature: string) => ({ requestId: newId(), licenseId, feature });

/** Repeats a call that a busy machine cut off at its deadline, with the same request_id, as the contract says. */
async function patiently<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const { code } = error as { code?: unknown };
      if (attempt === 20 || (code !== "DEADLINE_EXCEEDED" && code !== "UNAVAILABLE")) throw error;
    }
  }
}

const featuresOf = (license: License | undefined) => license?.grants.map(({ feature }) => feature);

/** The whole history of a license, oldest first. */
async function history(licenseId: string): Promise<LicenseHistoryEntry[]> {
  const entries: LicenseHistoryEntry[] = [];
  const holder = { case: "licenseId", value: licenseId } as const;
  for (let pageToken = "", page = 0; page < 100; page++) {
    const reply = await brand.licenses.listLicenseEvents({ holder, pageSize: 200, pageToken });
    entries.push(...reply.entries);
    pageToken = reply.nextPageToken;
    if (pageToken === "") return entries;
  }
  throw new Error("the history has no end");
}

/** An entry as one would tell it. */
function told({ cause, feature, actor, before, after, effectiveAt }: LicenseHistoryEntry): string {
  const at = (timestampDate(effectiveAt as never).getTime() - start.getTime()) / DAY_MS;
  return `${at}: ${LicenseChangeCause[cause]} ${feature} by ${actor}, [${featuresOf(before) ?? ""}] > [${featuresOf(after)}]`;
}

test("a feature is switched on for one license, with all that is to be known of it, and off again", async () => {
  const { licenseId, customerId } = await provision();
  const configuration = '{"venues": ["EGX"], "max_orders": 12345678901234567890}';
  const wanted = { ...of(licenseId, "extra_0"), expiresAt: day(30), configuration, onBehalfOf: "ada@example.com" };
  const activated = await brand.licenses.activateFeature({ ...wanted, reason: "pilot", etag: "1" });
  const grant = {
    feature: "extra_0",
    activatedAt: day(0),
    activatedBy: "key-of-tradsys",
    onBehalfOf: "ada@example.com",
    expiresAt: day(30),
    configuration,
  };
  expect(activated).toMatchObject({
    license: { etag: "2", features: ["basic_trading"], grants: [grant] },
    consistencyToken: { customerId, version: 3n },
  });
  const { license: held } = await brand.licenses.getLicense({ licenseId });
  expect(held).toEqual({ ...activated.license, seatsUsed: 0 });

  harness.clock.now = new Date(start.getTime() + DAY_MS);
  const changed = await brand.licenses.activateFeature({ ...of(licenseId, "extra_0"), etag: "2" });
  const { expiresAt: _, ...kept } = grant;
  expect(changed.license?.grants[0]).toMatchObject({ ...kept, configuration: "", onBehalfOf: "" });
  expect(changed.license?.grants[0]?.expiresAt).toBeUndefined();
  const deactivated = await brand.licenses.deactivateFeature({ ...of(licenseId, "extra_0"), reason: "over" });
  expect(deactivated).toMatchObject({ license: { etag: "4", grants: [] }, consistencyToken: { version: 5n } });

  const entries = await history(licenseId);
  expect(entries.slice(1).map(told)).toEqual([
    "0: FEATURE_ACTIVATED extra_0 by key-of-tradsys, [] > [extra_0]",
    "1: FEATURE_ACTIVATED extra_0 by key-of-tradsys, [extra_0] > [extra_0]",
    "1: FEATURE_DEACTIVATED extra_0 by key-of-tradsys, [extra_0] > []",
  ]);
  expect(entries.map(({ reason }) => reason)).toEqual(["", "pilot", "", "over"]);
  await harness.licensing.drain();
  const heard = harness.published
    .filter(({ topic, key }) => topic === "licet.license.v1" && key === `tradsys/${customerId}`)
    .map((record) => ({ type: record.headers.ce_type, ...fromBinary(LicenseChangedSchema, record.value) }));
  expect(heard.slice(2).map(({ type, feature, version }) => [type, feature, version])).toEqual([
    ["licet.feature.activated.v1", "extra_0", 3n],
    ["licet.feature.activated.v1", "extra_0", 4n],
    ["licet.feature.deactivated.v1", "extra_0", 5n],
  ]);
  // Deciders get what decides, and nobody's name.
  expect(heard[2]?.snapshot?.licenses[0]?.grants).toEqual([
    expect.objectContaining({ feature: "extra_0", configuration, expiresAt: day(30), activatedBy: "", onBehalfOf: "" }),
  ]);
});

test("100 parallel activations with one request_id have one effect and one answer", async () => {
  const { licenseId } = await provision();
  const request = of(licenseId, "extra_0");
  const answers = await Promise.all(
    Array.from({ length: 100 }, () => patiently(() => brand.licenses.activateFeature(request))),
  );
  expect(new Set(answers.map(({ license }) => license?.etag))).toEqual(new Set(["2"]));
  expect(await history(licenseId)).toHaveLength(2);
  const other = brand.licenses.activateFeature({ ...request, feature: "extra_1" });
  await expect(other).rejects.toMatchObject({ reason: "REQUEST_ID_REUSED" });
});

describe("at the same time", () => {
  test("50 activations of different features on one license: none is lost, and versions have no gap", async () => {
    for (let round = 0; round < 3; round++) {
      const { licenseId } = await provision();
      const wanted = extras.slice(0, 50);
      const replies = await Promise.all(
        wanted.map((feature) => {
          const request = of(licenseId, feature);
          return patiently(() => brand.licenses.activateFeature(request));
        }),
      );
      const { license } = await brand.licenses.getLicense({ licenseId });
      expect(featuresOf(license)).toEqual([...wanted].sort());
      expect(license?.etag).toBe("51");
      const versions = replies.map(({ consistencyToken }) => Number(consistencyToken?.version));
      expect(versions.sort((a, b) => a - b)).toEqual(wanted.map((_, index) => index + 3));
      for (const { license: told } of replies) expect(told?.grants).toHaveLength(Number(told?.etag) - 1);
    }
  });

  test("activations and deactivations, told in one order that a set follows step by step", async () => {
    const { licenseId, customerId } = await provision();
    const features = extras.slice(0, 5);
    const callers = Array.from({ length: 40 }, async (_, caller) => {
      const { licenses } = brand;
      const outcomes: PromiseSettledResult<Reply>[] = [];
      for (let turn = 0; turn < 3; turn++) {
        const request = of(licenseId, features[(caller * 3 + turn) % features.length] as string);
        const change = (caller + turn) % 3 === 2 ? licenses.deactivateFeature : licenses.activateFeature;
        outcomes.push(...(await Promise.allSettled([patiently<Reply>(() => change(request))])));
      }
      return outcomes;
    });
    const outcomes = (await Promise.all(callers)).flat();
    const refused = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason.reason] : []));
    expect(refused.filter((reason) => reason !== "GRANT_NOT_FOUND")).toEqual([]);
    const done = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    const replies = new Map(done.map((reply) => [reply.consistencyToken?.version, reply.license]));
    const entries = (await history(licenseId)).slice(1);
    expect(entries).toHaveLength(done.length);
    const model = new Set<string>();
    for (const [index, { cause, feature, version, before, after }] of entries.entries()) {
      expect(version).toBe(BigInt(index + 3));
      expect(featuresOf(before)).toEqual([...model].sort());
      if (cause === LicenseChangeCause.FEATURE_ACTIVATED) model.add(feature);
      else expect(model.delete(feature)).toBe(true);
      expect(featuresOf(after)).toEqual([...model].sort());
      expect(replies.get(version)).toEqual(after);
    }
    const { license } = await brand.licenses.getLicense({ licenseId });
    expect(featuresOf(license)).toEqual([...model].sort());
    const mesh = harness.as("tradsys", "mesh");
    const { snapshot } = await mesh.licenses.getEntitlementSnapshot({ customerId });
    expect(featuresOf(snapshot?.licenses[0])).toEqual([...model].sort());
  });

  test("with the same etag one of them wins", async () => {
    const { licenseId, etag } = await provision();
    const outcomes = await Promise.allSettled(
      extras.slice(0, 10).map((feature) => {
        const request = { ...of(licenseId, feature), etag };
        return patiently(() => brand.licenses.activateFeature(request));
      }),
    );
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    const lost = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
    for (const error of lost) {
      expect(error).toMatchObject({ code: "ABORTED", reason: "ETAG_MISMATCH", metadata: { etag: "2" } });
    }
  });
});

describe("what the clock does", () => {
  test("a grant ends at its time, is not shown from then on, and is told with that time", async () => {
    const { licenseId, etag } = await provision();
    await brand.licenses.activateFeature({ ...of(licenseId, "extra_0"), expiresAt: day(2) });
    await brand.licenses.activateFeature({ ...of(licenseId, "extra_1"), expiresAt: day(4) });
    harness.clock.now = timestampDate(day(2));
    const { license } = await brand.licenses.getLicense({ licenseId });
    expect(featuresOf(license)).toEqual(["extra_1"]);
    expect(license?.etag).toBe("3");
    harness.clock.now = timestampDate(day(3));
    await harness.licensing.settle();
    await harness.licensing.settle();
    expect((await history(licenseId)).slice(3).map(told)).toEqual([
      "2: GRANT_EXPIRED extra_0 by scheduler, [extra_0,extra_1] > [extra_1]",
    ]);
    // The etag is of what people do, and nobody did anything.
    expect((await brand.licenses.getLicense({ licenseId })).license?.etag).not.toBe(etag);
    const again = { ...of(licenseId, "extra_0"), etag: "3" };
    const { license: renewed } = await brand.licenses.activateFeature(again);
    expect(renewed?.grants[0]?.activatedAt).toEqual(day(3));
  });

  test("who acts first tells what is over, however many grants ended at once; a licence that ended keeps its own", async () => {
    const { licenseId } = await provision({ validUntil: day(10) });
    const many = extras.slice(0, 30);
    for (const feature of many) {
      await brand.licenses.activateFeature({ ...of(licenseId, feature), expiresAt: day(1) });
    }
    const lasting = { ...of(licenseId, "extra_40"), expiresAt: day(12) };
    await brand.licenses.activateFeature(lasting);
    harness.clock.now = timestampDate(day(2));
    const { license } = await brand.licenses.revokeLicense({ requestId: newId(), licenseId });
    expect(featuresOf(license)).toEqual(["extra_40"]);
    const expired = (await history(licenseId)).filter(({ cause }) => cause === LicenseChangeCause.GRANT_EXPIRED);
    expect(expired.map(({ feature }) => feature)).toEqual([...many].sort());
    const before = (await history(licenseId)).length;
    harness.clock.now = timestampDate(day(20));
    await harness.licensing.settle();
    expect(await history(licenseId)).toHaveLength(before);
  });
});

describe("a change of the license", () => {
  test("of its plan: grants stay that the new version has or allows; the others end with it, as the history tells", async () => {
    const { licenseId } = await provision();
    for (const feature of ["extra_0", "extra_1", "extra_2"]) {
      await brand.licenses.activateFeature({ ...of(licenseId, feature), expiresAt: day(9), configuration: "{}" });
    }
    const { license } = await brand.licenses.changePlan({ requestId: newId(), licenseId, plan: "narrow" });
    expect(license?.grants.map(({ feature, configuration }) => [feature, configuration])).toEqual([
      ["extra_0", "{}"],
      ["extra_1", "{}"],
    ]);
    expect((await history(licenseId)).slice(4).map(told)).toEqual([
      "0: PLAN_CHANGED  by key-of-tradsys, [extra_0,extra_1,extra_2] > [extra_0,extra_1]",
    ]);
  });

  test("of its holder: they go with it", async () => {
    const { licenseId } = await provision();
    const { license } = await brand.licenses.activateFeature(of(licenseId, "extra_0"));
    const toCustomerId = await newCustomer();
    const moved = await brand.licenses.transferLicense({ requestId: newId(), licenseId, toCustomerId });
    expect(moved.license?.grants).toEqual(license?.grants);
    const mesh = harness.as("tradsys", "mesh");
    const { snapshot } = await mesh.licenses.getEntitlementSnapshot({ customerId: toCustomerId });
    expect(featuresOf(snapshot?.licenses[0])).toEqual(["extra_0"]);
  });
});

describe("refusals", () => {
  /** Expects a refusal that changes nothing. */
  async function refused(license: License, attempt: () => Promise<unknown>, error: object): Promise<void> {
    const { licenseId } = license;
    const known = await history(licenseId);
    const before = (await brand.licenses.getLicense({ licenseId })).license;
    await expect(attempt()).rejects.toMatchObject(error);
    expect((await brand.licenses.getLicense({ licenseId })).license).toEqual(before);
    expect(await history(licenseId)).toHaveLength(known.length);
  }

  test.each([
    ["an expiry that has passed", { expiresAt: day(0) }, "expires_at"],
    ["an expiry that no clock shows", { expiresAt: { seconds: 999_999_999_999n } }, "expires_at"],
    ["a configuration that is a list", { configuration: "[]" }, "configuration"],
    ["a configuration that is no JSON", { configuration: "{" }, "configuration"],
    [
      "a configuration that nests too deep",
      { configuration: `${'{"a":'.repeat(8)}{}${"}".repeat(8)}` },
      "configuration",
    ],
    ["a configuration too long", { configuration: `{"a": "${"é".repeat(2_048)}"}` }, "configuration"],
    ["too long a name", { onBehalfOf: "x".repeat(256) }, "on_behalf_of"],
    ["`*`", { feature: "*" }, "feature"],
    ["no feature", { feature: "" }, "feature"],
    ["no request_id", { requestId: "" }, "request_id"],
  ])("%s: named by its field", async (_what, fields, field) => {
    const license = await provision();
    const request = { ...of(license.licenseId, "extra_0"), ...(fields as object) };
    const violations = [expect.objectContaining({ field })];
    await refused(license, () => brand.licenses.activateFeature(request), { code: "INVALID_ARGUMENT", violations });
  });

  test("what the plan does not let be granted, what the product does not have, what the plan gives", async () => {
    const license = await provision({ plan: "narrow" });
    const { licenseId } = license;
    const activate = (feature: string) => () => brand.licenses.activateFeature(of(licenseId, feature));
    const deactivate = (feature: string) => () => brand.licenses.deactivateFeature(of(licenseId, feature));
    await refused(license, activate("extra_2"), {
      code: "FAILED_PRECONDITION",
      reason: "GRANT_NOT_ALLOWED",
      metadata: { feature: "extra_2", plan: "narrow", plan_version: "1" },
    });
    await refused(license, activate("teleport"), { code: "NOT_FOUND", reason: "FEATURE_NOT_FOUND" });
    await refused(license, deactivate("teleport"), { code: "NOT_FOUND", reason: "FEATURE_NOT_FOUND" });
    await refused(license, deactivate("extra_1"), { code: "FAILED_PRECONDITION", reason: "FEATURE_IN_PLAN" });
    await refused(license, deactivate("extra_0"), { code: "NOT_FOUND", reason: "GRANT_NOT_FOUND" });
    const old = await provision({ plan: "standard" });
    const onOld = () => brand.licenses.activateFeature(of(old.licenseId, "extra_0"));
    await refused(old, onOld, { reason: "GRANT_NOT_ALLOWED", metadata: { plan: "standard" } });
  });

  test("what ended for good, a stale etag, a hundred and first grant", async () => {
    const over = await provision();
    await brand.licenses.revokeLicense({ requestId: newId(), licenseId: over.licenseId });
    const ended = { code: "FAILED_PRECONDITION", reason: "TRANSITION_NOT_ALLOWED" };
    await refused(over, () => brand.licenses.activateFeature(of(over.licenseId, "extra_0")), ended);
    await refused(over, () => brand.licenses.deactivateFeature(of(over.licenseId, "extra_0")), ended);
    const license = await provision();
    const stale = { ...of(license.licenseId, "extra_0"), etag: "7" };
    const mismatch = { code: "ABORTED", reason: "ETAG_MISMATCH", metadata: { etag: "1" } };
    await refused(license, () => brand.licenses.activateFeature(stale), mismatch);
    await refused(license, () => brand.licenses.deactivateFeature(stale), mismatch);
    const configuration = JSON.stringify({ text: "x".repeat(4_085) });
    for (const feature of extras.slice(0, 8)) {
      await brand.licenses.activateFeature({ ...of(license.licenseId, feature), configuration });
    }
    const full = () => brand.licenses.activateFeature({ ...of(license.licenseId, "extra_9"), configuration });
    await refused(license, full, { reason: "TOO_MANY_GRANTS", metadata: { maximum: "32768 bytes" } });
  });

  test("of another tenant's license, by callers who may only read, and of plans that allow what there is not", async () => {
    const { licenseId } = await provision();
    const other = await seedTenant(harness, "curious");
    const missing = { code: "NOT_FOUND", reason: "LICENSE_NOT_FOUND" };
    await expect(other.licenses.activateFeature(of(licenseId, "basic_trading"))).rejects.toMatchObject(missing);
    await expect(other.licenses.deactivateFeature(of(licenseId, "basic_trading"))).rejects.toMatchObject(missing);
    const viewer = harness.as("tradsys", "viewer");
    const denied = { code: "PERMISSION_DENIED", reason: "SCOPE_MISSING" };
    await expect(viewer.licenses.activateFeature(of(licenseId, "extra_0"))).rejects.toMatchObject(denied);
    await expect(plan("odd", [], ["teleport"])).rejects.toMatchObject({ reason: "FEATURE_NOT_FOUND" });
    await expect(plan("odd", [], ["*", "extra_0"])).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "terms.grantable_features" })],
    });
    const terms = { type: LicenseType.STANDARD, grantableFeatures: ["extra_0", "extra_5"] };
    const published = await brand.catalog.createPlan({
      requestId: newId(),
      product: "trading",
      plan: "some",
      name: "Some",
      terms,
    });
    expect(published.plan?.terms?.grantableFeatures).toEqual(["extra_0", "extra_5"]);
    const { plan: read } = await brand.catalog.getPlan({ product: "trading", plan: "some" });
    expect(read?.terms?.grantableFeatures).toEqual(["extra_0", "extra_5"]);
  });
});

test("a bare license may be granted all of its product; keys and signed licenses say so, without persons", async () => {
  const style = { keyFormat: KeyFormat.TOKEN, keyPrefix: "NLS" };
  await brand.catalog.createProduct({ requestId: newId(), product: "flows", name: "Flows", ...style });
  for (const feature of ["runs", "audit"]) {
    await brand.catalog.createFeature({ requestId: newId(), product: "flows", feature, name: feature });
  }
  const { licenseId } = await provision({
    product: "flows",
    plan: "",
    features: ["runs"],
    seats: 1,
    validUntil: day(90),
    metadata: { note: "ours" },
  });
  const wanted = { configuration: '{"days": 30}', onBehalfOf: "ada@example.com" };
  await brand.licenses.activateFeature({ ...of(licenseId, "audit"), ...wanted, expiresAt: day(20) });
  await brand.licenses.activateFeature({ ...of(licenseId, "runs"), expiresAt: day(1) });
  harness.clock.now = timestampDate(day(2));

  const claimed = [
    { feature: "audit", expires_at: timestampDate(day(20)).toISOString(), configuration: '{"days": 30}' },
  ];
  const { signedLicense } = await brand.licenses.getSignedLicense({ licenseId });
  const signed = JSON.parse(Buffer.from(signedLicense?.payload ?? []).toString());
  expect(signed.license).toMatchObject({ features: ["runs"], grants: claimed });
  const { secret } = await brand.keys.issueKey({ requestId: newId(), licenseIds: [licenseId] });
  const payload = Buffer.from(secret.split(".")[1] ?? "", "base64url").toString();
  expect(JSON.parse(payload).licenses[0].grants).toEqual(claimed);
  expect(payload).not.toContain("ada@example.com");
  const { license } = await harness.installed.checkKey({ key: secret, product: "flows" });
  const shown: Partial<Grant> = { feature: "audit", configuration: '{"days": 30}', activatedBy: "", onBehalfOf: "" };
  expect(license?.grants).toEqual([expect.objectContaining(shown)]);
  expect(license?.metadata).toEqual({});
});
