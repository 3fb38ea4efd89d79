import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { Enforcement, LicenseType, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  Decision,
  DecisionReason,
  DecisionSource,
  ExplanationSubject,
  LimitSource,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { topicOf } from "@licet/platform/events/cloudevent";
import { until } from "@licet/platform/testing/until";
import {
  catalog,
  catalogRecord,
  createHarness,
  credentialRecord,
  dayMs,
  type Harness,
  license,
  snapshot,
  snapshotRecord,
  startMs,
  unreachable,
} from "./harness.ts";

let harness: Harness;
beforeEach(async () => {
  harness = await createHarness();
  harness.licensing.catalogs.push(catalog(1n, ["basic_trading", "egx_access"]));
});
afterEach(() => harness.close());

/** Sends a heartbeat behind all that was published, and waits until the service has reached it in every partition. */
async function caughtUp(): Promise<void> {
  const client = harness.client();
  harness.clock.ms += 1_000;
  const issuedMs = harness.clock.ms;
  await harness.bus.heartbeat(topicOf(EntitlementSnapshotSchema).name, new Date(issuedMs));
  await until("the heartbeat has arrived", async () => {
    const reply = await client.validateFeature({ customerId: "caught-up", feature: "basic_trading" });
    return reply.source === DecisionSource.MEMORY && reply.stalenessMs === 0n;
  });
}

describe("what is asked", () => {
  test("is answered from the snapshots that licensing had at the start", async () => {
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 7n, license()));
    await harness.validation.start();
    harness.clock.ms += 1_500;
    const reply = await harness.client().validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
    expect(reply).toMatchObject({
      valid: true,
      violations: [],
      decision: Decision.ALLOW,
      reason: DecisionReason.ALLOWED,
      limitViolations: [],
      version: 7n,
      source: DecisionSource.MEMORY,
      stalenessMs: 1_500n,
      license: {
        licenseId: "0197a000-0000-7000-8000-000000000001",
        type: LicenseType.STANDARD,
        product: "trading",
        plan: "standard",
        status: LicenseStatus.ACTIVE,
        validUntil: timestampFromMs(startMs + 100 * dayMs),
      },
    });
    expect(reply.license?.graceUntil).toBeUndefined();
    expect(harness.licensing.asked.filter((what) => what.includes("/"))).toEqual([]);
  });

  test("in grace tells until when, and expires by the clock alone", async () => {
    const own = license({ validUntil: timestampFromMs(startMs), graceDays: 3 });
    harness.licensing.snapshots.set("tradsys/lapsing", snapshot("lapsing", 1n, own));
    await harness.validation.start();
    const client = harness.client();
    const ask = () => client.validateFeature({ customerId: "lapsing", feature: "basic_trading" });
    expect(await ask()).toMatchObject({
      valid: true,
      reason: DecisionReason.ALLOWED_IN_GRACE,
      license: { status: LicenseStatus.GRACE, graceUntil: timestampFromMs(startMs + 3 * dayMs) },
    });
    harness.clock.ms += 3 * dayMs;
    expect(await ask()).toMatchObject({
      valid: false,
      decision: Decision.DENY,
      reason: DecisionReason.LICENSE_EXPIRED,
      license: { status: LicenseStatus.EXPIRED },
      violations: [expect.stringContaining("expired on 2030-06-01 00:00 UTC; its grace ended on 2030-06-04")],
    });
  });

  test("a grant gives a feature, with its end and configuration, until the clock ends it; an event only repeats it", async () => {
    const configuration = '{"venues": 3}';
    const expiresAt = timestampFromMs(startMs + dayMs);
    const own = license({ grants: [{ feature: "egx_access", expiresAt, configuration }] });
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, own));
    await harness.validation.start();
    const client = harness.client();
    const ask = (feature: string) => client.validateFeature({ customerId: "nile-brokers", feature });
    expect(await ask("egx_access")).toMatchObject({
      valid: true,
      reason: DecisionReason.ALLOWED,
      grant: { expiresAt, configuration },
    });
    expect((await ask("basic_trading")).grant).toBeUndefined();
    harness.clock.ms += dayMs;
    const over = await ask("egx_access");
    expect(over).toMatchObject({
      valid: false,
      reason: DecisionReason.FEATURE_NOT_IN_PLAN,
      version: 1n,
      violations: [expect.any(String), 'The grant of feature "egx_access" ended on 2030-06-02 00:00 UTC.'],
    });
    expect(over.grant).toBeUndefined();
  });

  test("counts limits by the values of the context", async () => {
    const limits = [
      { metric: "users", maximum: 50n, window: LimitWindow.GAUGE, enforcement: Enforcement.HARD },
      { metric: "api_calls", maximum: 9n, window: LimitWindow.PER_DAY, enforcement: Enforcement.SOFT },
    ];
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, license({ limits })));
    await harness.validation.start();
    const client = harness.client();
    const ask = (context: Record<string, string>) =>
      client.validateFeature({ customerId: "nile-brokers", feature: "basic_trading", context });
    expect(await ask({ users: "50", product: "trading", constructor: "x" })).toMatchObject({ valid: true });
    expect(await ask({ users: "51", api_calls: "10" })).toMatchObject({
      valid: false,
      reason: DecisionReason.LIMIT_EXCEEDED,
      limitViolations: [
        {
          metric: "users",
          current: "51",
          limit: 50n,
          window: LimitWindow.GAUGE,
          enforcement: Enforcement.HARD,
          source: LimitSource.CONTEXT,
        },
        {
          metric: "api_calls",
          current: "10",
          limit: 9n,
          window: LimitWindow.PER_DAY,
          enforcement: Enforcement.SOFT,
          source: LimitSource.CONTEXT,
        },
      ],
      violations: [expect.stringContaining('"users" would be 51'), expect.stringContaining('"api_calls" would be 10')],
    });
    await expect(ask({ users: "many" })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      violations: [{ field: 'context["users"]' }],
    });
    expect(await ask({ product: "research" })).toMatchObject({ reason: DecisionReason.NO_LICENSE });
  });

  test("is explained step by step where that is asked for, and only there", async () => {
    harness.licensing.snapshots.set(
      "tradsys/nile-brokers",
      snapshot("nile-brokers", 3n, license({ addOns: [{ addOn: "middle-east", version: 1, quantity: 1 }] })),
    );
    await harness.validation.start();
    const client = harness.client();
    const request = { customerId: "nile-brokers", feature: "egx_access" };
    expect((await client.validateFeature(request)).explanation).toBeUndefined();
    const { reason, explanation } = await client.validateFeature({ ...request, explain: true });
    expect(reason).toBe(DecisionReason.FEATURE_NOT_IN_PLAN);
    expect(explanation?.steps.map(({ subject, passed }) => [subject, passed])).toEqual([
      [ExplanationSubject.CUSTOMER, true],
      [ExplanationSubject.LICENSE, true],
      [ExplanationSubject.CLOCK, true],
      [ExplanationSubject.PLAN, false],
      [ExplanationSubject.ADD_ON, true],
      [ExplanationSubject.POLICY, true],
    ]);
    expect(explanation?.steps[3]).toMatchObject({
      licenseId: "0197a000-0000-7000-8000-000000000001",
      sentence: 'Version 1 of plan "standard" of product "trading" does not give "egx_access".',
      facts: { plan: "standard", plan_version: "1" },
    });
  });

  test("with what is to be counted is refused, naming the field, and never answered without counting", async () => {
    await harness.validation.start();
    const request = { customerId: "nile-brokers", feature: "basic_trading", consume: { api_calls: "1" } };
    await expect(harness.client().validateFeature(request)).rejects.toMatchObject({
      code: "UNIMPLEMENTED",
      reason: "CONSUME_NOT_AVAILABLE",
      violations: [{ field: "consume" }],
    });
    expect(harness.licensing.asked).not.toContain("tradsys/nile-brokers");
  });

  test.each([
    [{ customerId: "", feature: "basic_trading" }, "customer_id"],
    [{ customerId: "nile-brokers", feature: "" }, "feature"],
    [{ customerId: "nile-brokers", feature: "Basic Trading" }, "feature"],
    [{ customerId: "x".repeat(256), feature: "basic_trading" }, "customer_id"],
  ])("in a form that is not allowed is refused, naming the field: %j", async (request, field) => {
    await harness.validation.start();
    await expect(harness.client().validateFeature(request)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      violations: [{ field }],
    });
  });
});

describe("events", () => {
  test("a revocation is seen, and nothing older undoes it", async () => {
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, license()));
    await harness.validation.start();
    const revoked = license({ status: LicenseStatus.REVOKED, endedAt: timestampFromMs(startMs) });
    await harness.publish(snapshotRecord(snapshot("nile-brokers", 3n, revoked)));
    await harness.publish(snapshotRecord(snapshot("nile-brokers", 2n, license())));
    await caughtUp();
    const reply = await harness.client().validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
    expect(reply).toMatchObject({ valid: false, reason: DecisionReason.LICENSE_REVOKED, version: 3n });
  });

  test("what is published while licensing is being read is not lost", async () => {
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, license()));
    harness.licensing.before = async (what) => {
      if (what === "stream") await harness.publish(snapshotRecord(snapshot("nile-brokers", 2n)));
    };
    await harness.validation.start();
    const reply = await harness.client().validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
    expect(reply).toMatchObject({ version: 2n, reason: DecisionReason.NO_LICENSE, source: DecisionSource.MEMORY });
  });

  test("a feature added to a product is in `*` at once", async () => {
    const all = license({ features: ["*"] });
    harness.licensing.snapshots.set("tradsys/cairo-capital", snapshot("cairo-capital", 1n, all));
    await harness.validation.start();
    const client = harness.client();
    const ask = () => client.validateFeature({ customerId: "cairo-capital", feature: "adx_access" });
    expect(await ask()).toMatchObject({
      reason: DecisionReason.FEATURE_NOT_IN_PLAN,
      violations: ['No product has a feature "adx_access".'],
    });
    await harness.publish(catalogRecord(catalog(2n, ["basic_trading", "adx_access"])));
    await until("the feature is known", async () => (await ask()).valid);
  });

  test("staleness grows while the log is silent and falls with a heartbeat", async () => {
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, license()));
    await harness.validation.start();
    await caughtUp();
    const client = harness.client();
    const ask = () => client.validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
    await ask();
    harness.licensing.before = unreachable;
    harness.clock.ms += 45_000;
    expect((await ask()).stalenessMs).toBe(45_000n);
    await harness.bus.heartbeat(topicOf(EntitlementSnapshotSchema).name, new Date(harness.clock.ms - 20));
    await until("the heartbeat has arrived", async () => (await ask()).stalenessMs === 20n);
  });
});

describe("a customer that is not in memory", () => {
  const request = { customerId: "late", feature: "basic_trading" };

  test("is asked of licensing once, and then known", async () => {
    await harness.validation.start();
    harness.clock.ms += 10_000;
    harness.licensing.snapshots.set("tradsys/late", snapshot("late", 4n, license()));
    const client = harness.client();
    const first = await Promise.all([1, 2, 3].map(() => client.validateFeature(request)));
    for (const reply of first) expect(reply).toMatchObject({ valid: true, version: 4n });
    expect(first[0]).toMatchObject({ source: DecisionSource.LICENSING, stalenessMs: 0n });
    const next = await client.validateFeature(request);
    expect(next).toMatchObject({ valid: true, source: DecisionSource.MEMORY, stalenessMs: 0n });
    expect(harness.licensing.asked.filter((what) => what === "tradsys/late")).toHaveLength(1);
  });

  test("and is unknown to licensing stays unknown for a while, or until its first event", async () => {
    await harness.validation.start();
    const client = harness.client();
    const asked = () => harness.licensing.asked.filter((what) => what === "tradsys/late").length;
    const unknown = { valid: false, reason: DecisionReason.NO_LICENSE, version: 0n };
    expect(await client.validateFeature(request)).toMatchObject({ ...unknown, source: DecisionSource.LICENSING });
    expect(await client.validateFeature(request)).toMatchObject({
      ...unknown,
      source: DecisionSource.MEMORY,
      violations: ['Customer "late" is unknown.'],
    });
    expect(asked()).toBe(1);
    harness.clock.ms += 5_000;
    await client.validateFeature(request);
    expect(asked()).toBe(2);
    await harness.publish(snapshotRecord(snapshot("late", 1n, license())));
    await until("the event has arrived", async () => (await client.validateFeature(request)).valid);
    expect(asked()).toBe(2);
  });

  test("can't be decided while licensing is away; one that is in memory can", async () => {
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, license()));
    await harness.validation.start();
    const client = harness.client();
    await client.validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
    harness.licensing.before = unreachable;
    await expect(client.validateFeature(request)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "DEPENDENCY_UNAVAILABLE",
      message: 'the licensing service can\'t be asked about customer "late"; try again',
    });
    const reply = await client.validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
    expect(reply.valid).toBe(true);
  });
});

describe("callers", () => {
  const request = { customerId: "nile-brokers", feature: "basic_trading" };

  test("see their own tenant only", async () => {
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 7n, license()));
    await harness.validation.start();
    const other = harness.client(harness.newKey("nectar").key);
    expect(await other.validateFeature(request)).toMatchObject({ reason: DecisionReason.NO_LICENSE, version: 0n });
    expect(harness.licensing.asked).toContain("nectar/nile-brokers");
    expect(await other.validateFeature({ ...request, customerId: "tradsys/nile-brokers" })).toMatchObject({
      reason: DecisionReason.NO_LICENSE,
    });
  });

  test("need a key that holds the scope", async () => {
    await harness.validation.start();
    await expect(harness.client("").validateFeature(request)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    const other = harness.newKey("tradsys", ["licenses:read"]);
    await expect(harness.client(other.key).validateFeature(request)).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "SCOPE_MISSING",
    });
  });

  test("lose a revoked key by its event, and licensing is not asked about keys of events", async () => {
    const { key, credential } = harness.newKey("tradsys");
    await harness.publish(credentialRecord(credential));
    await harness.validation.start();
    await harness.credentialsCaughtUp();
    const client = harness.client(key);
    await client.validateFeature(request);
    expect(harness.licensing.asked).not.toContain(credential.keyId);
    await harness.publish(credentialRecord({ ...credential, version: 2n, revokedAt: timestampFromMs(startMs) }));
    await until("the key is refused", () =>
      client.validateFeature(request).then(
        () => false,
        (error) => error.reason === "CREDENTIAL_INVALID" && error.message.includes("was revoked"),
      ),
    );
  });

  test("with an unknown key are refused, and told to try again where nobody can say", async () => {
    await harness.validation.start();
    const { key, credential } = harness.newKey("tradsys");
    harness.licensing.before = unreachable;
    await expect(harness.client(key).validateFeature(request)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "DEPENDENCY_UNAVAILABLE",
    });
    harness.licensing.before = async () => undefined;
    harness.licensing.credentials.delete(String(credential.keyId));
    await expect(harness.client(key).validateFeature(request)).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
      reason: "CREDENTIAL_INVALID",
    });
  });
});

describe("the start", () => {
  test("tries again until licensing is there; ready only then", async () => {
    const attempts = () => harness.licensing.asked.filter((what) => what === "time").length;
    harness.licensing.before = unreachable;
    const started = harness.validation.start();
    await until("an attempt has failed", () => attempts() >= 2);
    expect(harness.validation.ready()).toBe(false);
    harness.licensing.before = async () => undefined;
    await started;
    expect(harness.validation.ready()).toBe(true);
  });

  test("ends with a stop", async () => {
    harness.licensing.before = unreachable;
    const started = harness.validation.start();
    await until("an attempt was made", () => harness.licensing.asked.includes("time"));
    await harness.validation.stop();
    await started;
    expect(harness.validation.ready()).toBe(false);
  });
});
