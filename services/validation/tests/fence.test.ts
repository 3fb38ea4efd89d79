import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, test } from "@jest/globals";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  Decision,
  DecisionReason,
  DecisionSource,
  type ValidateFeatureResponse,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { EventBus, Heartbeat } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { until } from "@licet/platform/testing/until";
import type { Config } from "../src/config.ts";
import {
  type CutBus,
  catalog,
  createHarness,
  cutBus,
  type Harness,
  license,
  snapshot,
  snapshotRecord,
  startMs,
  unreachable,
} from "./harness.ts";

const topic = topicOf(EntitlementSnapshotSchema);
const T = 30_000;
const closed = { failMode: { mode: { case: "closed", value: true } } } as const;
const grace = { failMode: { mode: { case: "graceSeconds", value: 60 } } } as const;
const revoked = license({ status: LicenseStatus.REVOKED, endedAt: timestampFromMs(startMs) });

let harness: Harness;
afterEach(() => harness.close());

/** A replica that knows nile-brokers, with `margin` (closed), `reports` (60 s) and `alerts` (nothing said: 300 s). */
async function start(overrides: Partial<Config> = {}, wrapBus?: (bus: EventBus) => EventBus): Promise<void> {
  harness = await createHarness(overrides, wrapBus);
  const features = [{ feature: "margin", ...closed }, { feature: "reports", ...grace }, { feature: "alerts" }];
  harness.licensing.catalogs.push(catalog(1n, [], { features }));
  const held = license({ features: ["margin", "reports", "alerts"] });
  harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 1n, held));
  await harness.validation.start();
  // The key is known from now on: credentials are not what is cut off here.
  await ask("margin");
}

let client: ReturnType<Harness["client"]> | undefined;
afterEach(() => {
  client = undefined;
});

function ask(feature: string, customerId = "nile-brokers"): Promise<ValidateFeatureResponse> {
  client ??= harness.client();
  return client.validateFeature({ customerId, feature });
}

/** What is answered about each of the three features, such as `ALLOW` or `DENY FACTS_TOO_OLD degraded`. */
async function answers(): Promise<string[]> {
  const replies = await Promise.all(["margin", "reports", "alerts"].map((feature) => ask(feature)));
  return replies.map(({ decision, reason, degraded }) => {
    const why = decision === Decision.DENY ? ` ${DecisionReason[reason]}` : "";
    return `${Decision[decision]}${why}${degraded ? " degraded" : ""}`;
  });
}

/** Sends a heartbeat and waits until the replica's facts are as old as it. */
async function beat(issuedAtMs: number): Promise<void> {
  await harness.bus.heartbeat(topic.name, new Date(issuedAtMs));
  await until("the heartbeat has arrived", async () => {
    const { stalenessMs } = await ask("alerts");
    return Number(stalenessMs) <= harness.clock.ms - issuedAtMs;
  });
}

const allow = ["ALLOW", "ALLOW", "ALLOW"];
const tooOld = "DENY FACTS_TOO_OLD degraded";

describe("a replica that is cut off from the log and from licensing", () => {
  test("allows each feature as long as its fail mode says, then denies it", async () => {
    await start();
    harness.licensing.before = unreachable;
    const at = async (staleMs: number) => {
      harness.clock.ms = startMs + staleMs;
      return answers();
    };
    expect(await at(T - 1)).toEqual(allow);
    expect(harness.validation.degraded()).toBe(false);
    expect(await at(T)).toEqual([tooOld, "ALLOW degraded", "ALLOW degraded"]);
    expect(harness.validation.degraded()).toBe(true);
    expect(harness.validation.ready()).toBe(true);
    expect(await at(T + 59_999)).toEqual([tooOld, "ALLOW degraded", "ALLOW degraded"]);
    expect(await at(T + 60_000)).toEqual([tooOld, tooOld, "ALLOW degraded"]);
    // Without calibration for minutes the clock allows for drift: at most 0.5 ms a second.
    expect(await at(T + 299_800)).toEqual([tooOld, tooOld, "ALLOW degraded"]);
    expect(await at(T + 300_000)).toEqual([tooOld, tooOld, tooOld]);
    await harness.bus.heartbeat(topic.name, new Date(harness.clock.ms));
    await until("the log is back", async () => (await ask("margin")).valid);
    expect(await answers()).toEqual(allow);
    expect(harness.validation.degraded()).toBe(false);
  });

  test("denies what it knows to be denied, and customers that nobody knows", async () => {
    await start();
    await harness.publish(snapshotRecord(snapshot("nile-brokers", 2n, revoked)));
    await until("the revocation is seen", async () => !(await ask("alerts")).valid);
    harness.licensing.before = unreachable;
    harness.clock.ms += T + 1;
    expect(await ask("alerts")).toMatchObject({ reason: DecisionReason.LICENSE_REVOKED, degraded: true });
    await expect(ask("alerts", "somebody-new")).rejects.toMatchObject({ reason: "DEPENDENCY_UNAVAILABLE" });
  });

  test("without the fence would allow what was revoked long ago (control)", async () => {
    await start({ fenceMs: Number.POSITIVE_INFINITY });
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 2n, revoked));
    harness.licensing.before = unreachable;
    harness.clock.ms += 3_600_000;
    expect(await answers()).toEqual(allow);
  });

  test("asks licensing once a second at most, and answers meanwhile", async () => {
    await start();
    const asked = () => harness.licensing.asked.filter((what) => what === "tradsys/nile-brokers").length;
    harness.licensing.before = unreachable;
    harness.clock.ms += T;
    for (let round = 0; round < 20; round++) await answers();
    expect(asked()).toBe(1);
    harness.clock.ms += 1_000;
    await answers();
    expect(asked()).toBe(2);
  });

  test("does not wait for a licensing service that says nothing", async () => {
    // A look-up that ends by its own deadline, on a machine that stands still, has no late answer.
    await start({ lookUpTimeoutMs: 5_000 });
    const silence = Promise.withResolvers<void>();
    harness.licensing.before = () => silence.promise;
    harness.clock.ms += T;
    // Settled before it is judged: a failure must not leave licensing silent for the rest of the file.
    const meanwhile = await answers().finally(() => silence.resolve());
    expect(meanwhile).toEqual([tooOld, "ALLOW degraded", "ALLOW degraded"]);
    await until("the late answer counts", async () => (await ask("margin")).valid);
  });
});

describe("a replica that is cut off from the log alone", () => {
  test("asks licensing about the customer, once in T, and sees a revocation that the log did not bring", async () => {
    // A look-up that a busy machine is too slow for would bar the next one, as the clock stands still meanwhile.
    await start({ staleLookUpTimeoutMs: 4_000 });
    harness.clock.ms += T;
    const first = await Promise.all(["margin", "reports", "alerts"].map((feature) => ask(feature)));
    for (const reply of first) expect(reply).toMatchObject({ valid: true, degraded: false, stalenessMs: 0n });
    expect(first[0]?.source).toBe(DecisionSource.LICENSING);
    const asked = () => harness.licensing.asked.filter((what) => what === "tradsys/nile-brokers").length;
    expect(asked()).toBe(1);
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 2n, revoked));
    harness.clock.ms += T - 1;
    expect(await ask("margin")).toMatchObject({
      valid: true,
      source: DecisionSource.MEMORY,
      stalenessMs: BigInt(T - 1),
    });
    harness.clock.ms += 1;
    expect(await ask("margin")).toMatchObject({ reason: DecisionReason.LICENSE_REVOKED, degraded: false });
    expect(asked()).toBe(2);
  });
});

describe("the age of facts", () => {
  test("a log that delivers everything 60 s late makes the replica stale, although heartbeats keep coming", async () => {
    await start();
    harness.licensing.before = unreachable;
    for (let second = 1; second <= 90; second++) {
      harness.clock.ms += 1_000;
      await harness.bus.heartbeat(topic.name, new Date(harness.clock.ms - 60_000));
    }
    await beat(harness.clock.ms - 60_000);
    expect(await ask("margin")).toMatchObject({ reason: DecisionReason.FACTS_TOO_OLD, stalenessMs: 60_000n });
    expect(harness.validation.degraded()).toBe(true);
  });

  test("one partition that is cut off is enough", async () => {
    let cut = false;
    const heardSince = new Set<number>();
    const withoutPartition3 = (bus: EventBus): EventBus => ({
      ...bus,
      subscribe: ({ onHeartbeat, ...options }) =>
        bus.subscribe({
          ...options,
          onHeartbeat(heard: Heartbeat) {
            if (cut && heard.partition === 3) return;
            if (cut) heardSince.add(heard.partition);
            onHeartbeat?.(heard);
          },
        }),
    });
    await start({}, withoutPartition3);
    harness.licensing.before = unreachable;
    harness.clock.ms += 1_000;
    await beat(harness.clock.ms);
    cut = true;
    harness.clock.ms += T;
    await harness.bus.heartbeat(topic.name, new Date(harness.clock.ms));
    await until("the other partitions have heard it", () => heardSince.size === topic.partitions - 1);
    expect((await ask("margin")).reason).toBe(DecisionReason.FACTS_TOO_OLD);
  });

  test("goes by the clock of licensing's database: compared at the start, and again and again", async () => {
    harness = await createHarness({ calibrationMs: 5 });
    harness.licensing.clockAheadMs = 3_600_000;
    await harness.validation.start();
    const reply = () => ask("margin", "nobody");
    expect((await reply()).stalenessMs).toBe(0n);
    harness.licensing.clockAheadMs += T;
    await until("the clock was compared again", () => harness.validation.degraded());
    await harness.bus.heartbeat(topic.name, new Date(harness.clock.ms + harness.licensing.clockAheadMs - 20));
    await until("the heartbeat has arrived", () => !harness.validation.degraded());
  });
});

describe("a consistency token", () => {
  let bus: CutBus;
  const request = { customerId: "nile-brokers", feature: "alerts" };
  const atLeast = (version: bigint) => ({ ...request, atLeast: { customerId: "nile-brokers", version } });

  async function startCut(overrides: Partial<Config> = {}): Promise<ReturnType<Harness["client"]>> {
    await start(overrides, (inner) => {
      bus = cutBus(inner);
      return bus;
    });
    const caller = harness.client();
    // Makes the key known: licensing may be away later.
    await caller.validateFeature(request);
    return caller;
  }

  test("of what is in memory costs nothing", async () => {
    const caller = await startCut();
    expect(await caller.validateFeature(atLeast(1n))).toMatchObject({ version: 1n, source: DecisionSource.MEMORY });
  });

  test("waits for the event", async () => {
    // Long enough that the event comes first however slow the machine is, and less than a patient call's deadline.
    const caller = await startCut({ arrivalTimeoutMs: 4_000 });
    harness.licensing.before = unreachable;
    bus.cut();
    await harness.publish(snapshotRecord(snapshot("nile-brokers", 2n, revoked)));
    await bus.held();
    const reply = caller.validateFeature(atLeast(2n));
    bus.mend();
    expect(await reply).toMatchObject({ version: 2n, reason: DecisionReason.LICENSE_REVOKED });
  });

  test("asks licensing when the event does not come", async () => {
    const caller = await startCut();
    bus.cut();
    harness.licensing.snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 2n, revoked));
    expect(await caller.validateFeature(request)).toMatchObject({ valid: true, version: 1n });
    expect(await caller.validateFeature(atLeast(2n))).toMatchObject({
      version: 2n,
      reason: DecisionReason.LICENSE_REVOKED,
      source: DecisionSource.LICENSING,
    });
    expect(await caller.validateFeature(request)).toMatchObject({ version: 2n, source: DecisionSource.MEMORY });
  });

  test("is an outage, not a stale answer, when nobody has the version", async () => {
    const caller = await startCut();
    const unavailable = { code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE" };
    await expect(caller.validateFeature(atLeast(2n))).rejects.toMatchObject(unavailable);
    harness.licensing.before = unreachable;
    await expect(caller.validateFeature(atLeast(2n))).rejects.toMatchObject(unavailable);
    expect(await caller.validateFeature(atLeast(1n))).toMatchObject({ valid: true });
  });

  test("of another customer is refused", async () => {
    const caller = await startCut();
    const other = { ...request, atLeast: { customerId: "cairo-capital", version: 1n } };
    await expect(caller.validateFeature(other)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      message: expect.stringContaining("at_least must be a token of the customer asked about"),
    });
  });

  test("never sees a stale allow, however late the log is", async () => {
    const caller = await startCut({ arrivalTimeoutMs: 2 });
    const customers = Array.from({ length: 4 }, (_, index) => `customer-${index}`);
    const seen = { right: 0, stale: 0, refused: 0, elseStale: 0 };
    const held = license({ features: ["alerts"] });
    const live = async (customerId: string): Promise<void> => {
      for (let version = 1n; version <= 30n; version++) {
        // Even versions are revocations, odd ones allow again.
        const allowed = version % 2n === 1n;
        const written = snapshot(customerId, version, allowed ? held : { ...held, status: LicenseStatus.REVOKED });
        harness.licensing.snapshots.set(`tradsys/${customerId}`, written);
        await harness.publish(snapshotRecord(written));
        const plain = { customerId, feature: "alerts" };
        const asked = [
          plain,
          { ...plain, atLeast: { customerId, version } },
          { ...plain, atLeast: { customerId, version } },
        ];
        const [without, ...replies] = await Promise.allSettled(asked.map((one) => caller.validateFeature(one)));
        if (without?.status === "fulfilled" && without.value.version < version) seen.elseStale++;
        for (const reply of replies) {
          // On a busy machine a call may run into its deadline: no answer is no stale one.
          if (reply.status === "rejected") seen.refused++;
          else if (reply.value.version === version && reply.value.valid === allowed) seen.right++;
          else seen.stale++;
        }
      }
    };
    const weather = setInterval(() => (bus.isCut() ? bus.mend() : bus.cut()), 7);
    try {
      await Promise.all(customers.map(live));
    } finally {
      clearInterval(weather);
      bus.mend();
    }
    expect(seen.stale).toBe(0);
    expect(seen.right).toBeGreaterThan(120);
    // The log was late indeed: without a token there were old answers.
    expect(seen.elseStale).toBeGreaterThan(0);
  });
});
