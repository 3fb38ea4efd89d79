import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, test } from "@jest/globals";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import type {
  WatchEntitlementsRequestSchema,
  WatchEntitlementsResponse,
  WatchHeartbeat,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { toSnapshot } from "@licet/decide/from-wire";
import { topicOf } from "@licet/platform/events/cloudevent";
import { until } from "@licet/platform/testing/until";
import { type Config, watchDefaults } from "../src/config.ts";
import {
  type CutBus,
  catalog,
  catalogRecord,
  createHarness,
  credentialRecord,
  cutBus,
  type Harness,
  type Instance,
  license,
  snapshot,
  snapshotRecord,
  startMs,
  unreachable,
} from "./harness.ts";

type Request = MessageInitShape<typeof WatchEntitlementsRequestSchema>;

const topic = topicOf(EntitlementSnapshotSchema).name;
const revoked = license({ status: LicenseStatus.REVOKED });

let harness: Harness;
afterEach(() => harness.close());

async function start(
  overrides: Partial<Config> = {},
  customers: readonly string[] = ["cairo-capital", "nile-brokers"],
  wrapBus?: Parameters<typeof createHarness>[1],
): Promise<void> {
  const watches = { ...watchDefaults, heartbeatMs: 30, ...overrides.watches };
  harness = await createHarness({ ...overrides, watches }, wrapBus);
  harness.licensing.catalogs.push(catalog(1n, ["basic_trading"]));
  for (const customerId of customers) {
    harness.licensing.snapshots.set(`tradsys/${customerId}`, snapshot(customerId, 1n, license()));
  }
  harness.licensing.snapshots.set("rankmath/theirs", { ...snapshot("theirs", 1n, license()), tenantId: "rankmath" });
  await harness.validation.start();
}

/** A watch that its test reads message by message. */
class Watcher {
  readonly #leaving = new AbortController();
  readonly #messages: AsyncIterator<WatchEntitlementsResponse>;
  token = "";

  constructor(request: Request = {}, instance: Instance = harness, key?: string) {
    const stream = instance.client(key).watchEntitlements(request, { signal: this.#leaving.signal });
    this.#messages = stream[Symbol.asyncIterator]();
  }

  async next(): Promise<WatchEntitlementsResponse> {
    const { value, done } = await this.#messages.next();
    if (done) throw new Error("the stream ended without an error");
    this.token = value.resumeToken;
    return value;
  }

  /** Reads until the first message of a kind, or one of which more holds, and returns in short what came. */
  async until(what: string, holds: (message: WatchEntitlementsResponse) => boolean = () => true): Promise<string[]> {
    const seen: string[] = [];
    for (;;) {
      const message = await this.next();
      if (message.content.case !== "heartbeat" || what === "heartbeat") seen.push(inShort(message));
      if (message.content.case === what && holds(message)) return seen;
    }
  }

  /** Passes over what else comes. */
  async snapshot(): Promise<EntitlementSnapshot> {
    for (;;) {
      const { content } = await this.next();
      if (content.case === "snapshot") return content.value;
    }
  }

  /** Passes over what else comes. */
  async heartbeat(holds: (heartbeat: WatchHeartbeat) => boolean): Promise<WatchHeartbeat> {
    for (;;) {
      const { content } = await this.next();
      if (content.case === "heartbeat" && holds(content.value)) return content.value;
    }
  }

  async leave(): Promise<void> {
    this.#leaving.abort();
    await this.#messages.next().catch(() => undefined);
  }
}

function inShort({ content }: WatchEntitlementsResponse): string {
  switch (content.case) {
    case "snapshot":
      return `${content.value.customerId} ${content.value.version}`;
    case "catalog":
      return `${content.value.product} ${content.value.version}`;
    default:
      return content.case ?? "nothing";
  }
}

const asOfMs = ({ factsAsOf }: WatchHeartbeat): number => (factsAsOf === undefined ? 0 : timestampMs(factsAsOf));
const publish = (customerId: string, version: bigint, wire = revoked) =>
  harness.publish(snapshotRecord(snapshot(customerId, version, wire)));

/** Opens a watch as soon as there is room for it, and returns it with its first message. */
async function admitted(request: Request): Promise<{ watcher: Watcher; first: WatchEntitlementsResponse }> {
  const opened: { watcher: Watcher; first: WatchEntitlementsResponse }[] = [];
  await until("there is room for a watch", async () => {
    const watcher = new Watcher(request);
    const first = await watcher.next().catch((error: unknown) => {
      expect(error).toMatchObject({ reason: "TOO_MANY_WATCHES" });
      return undefined;
    });
    if (first !== undefined) opened.push({ watcher, first });
    return first !== undefined;
  });
  const [one] = opened;
  if (one === undefined) throw new Error("there was no room");
  return one;
}

/** Lets a second pass, and a heartbeat through the log that says so. */
async function beat(): Promise<void> {
  harness.clock.ms += 1_000;
  await harness.bus.heartbeat(topic, new Date(harness.clock.ms));
}

describe("a watch", () => {
  test("begins with everything, and goes on with what changes, each behind what was before", async () => {
    await start();
    const watcher = new Watcher();
    const first = await watcher.next();
    expect(first).toMatchObject({ resumeToken: "", content: { case: "reset" } });
    expect(first.sentAt && timestampMs(first.sentAt)).toBe(startMs);
    expect(await watcher.until("synchronized")).toEqual([
      "trading 1",
      "cairo-capital 1",
      "nile-brokers 1",
      "synchronized",
    ]);
    await publish("nile-brokers", 2n);
    expect(await watcher.until("snapshot")).toEqual(["nile-brokers 2"]);
    await publish("brand-new", 1n);
    expect(await watcher.until("snapshot")).toEqual(["brand-new 1"]);
    await harness.publish(catalogRecord(catalog(2n, ["basic_trading", "egx_access"])));
    expect(await watcher.until("catalog")).toEqual(["trading 2"]);
    await watcher.leave();
  });

  test("sends of a snapshot what decides, and nothing else", async () => {
    const noted = license({ metadata: { note: "ours alone" }, etag: "e", billingCycle: 1, seats: 3 });
    await start();
    const watcher = new Watcher({ customerIds: ["nile-brokers"] });
    await watcher.until("synchronized");
    await publish("nile-brokers", 2n, noted);
    const sent = await watcher.snapshot();
    expect(toSnapshot(sent).licenses[0]).toMatchObject({ product: "trading", plan: "standard", planVersion: 1 });
    expect(sent.licenses[0]).toMatchObject({ metadata: {}, etag: "", billingCycle: 0 });
    expect(sent.licenses[0]?.seats).toBeUndefined();
    expect(sent.issuedAt).toBeUndefined();
    await watcher.leave();
  });

  test("of named customers is about no others, and says of whom the tenant does not have that it has none", async () => {
    await start();
    const watcher = new Watcher({ customerIds: ["nile-brokers", "theirs"] });
    expect(await watcher.until("synchronized")).toEqual([
      "reset",
      "trading 1",
      "nile-brokers 1",
      "theirs 0",
      "synchronized",
    ]);
    await publish("cairo-capital", 2n);
    await publish("theirs", 1n);
    expect(await watcher.until("snapshot")).toEqual(["theirs 1"]);
    await watcher.leave();
  });

  test("vouches for what it has sent, and for nothing while the instance is cut off from the log", async () => {
    let bus: CutBus | undefined;
    await start({}, undefined, (inner) => {
      bus = cutBus(inner);
      return bus;
    });
    const watcher = new Watcher();
    await watcher.until("synchronized");
    await beat();
    const fresh = await watcher.heartbeat((heartbeat) => asOfMs(heartbeat) === harness.clock.ms);
    expect(fresh.sentAt && timestampMs(fresh.sentAt)).toBe(harness.clock.ms);
    bus?.cut();
    await publish("nile-brokers", 2n);
    await bus?.held();
    harness.clock.ms += 60_000;
    for (let count = 0; count < 3; count++) {
      const stale = await watcher.heartbeat(
        ({ sentAt }) => sentAt !== undefined && timestampMs(sentAt) > startMs + 60_000,
      );
      expect(asOfMs(stale)).toBe(startMs + 1_000);
    }
    bus?.mend();
    expect(await watcher.until("snapshot")).toEqual(["nile-brokers 2"]);
    await watcher.leave();
  });

  test("is over with its caller's key", async () => {
    await start();
    const { key, credential } = harness.newKey("tradsys");
    const watcher = new Watcher({}, harness, key);
    await watcher.until("synchronized");
    await harness.publish(credentialRecord({ ...credential, version: 2n, revokedAt: timestampFromMs(startMs) }));
    await expect(watcher.heartbeat(() => false)).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
      reason: "CREDENTIAL_INVALID",
    });
  });

  test("shows a tenant nothing of another", async () => {
    await start();
    const watcher = new Watcher({}, harness, harness.newKey("rankmath").key);
    expect(await watcher.until("synchronized")).toEqual(["reset", "theirs 1", "synchronized"]);
    await publish("theirs", 5n);
    await publish("nile-brokers", 2n);
    await harness.publish(catalogRecord(catalog(2n, ["egx_access"])));
    await harness.publish(snapshotRecord({ ...snapshot("theirs", 2n), tenantId: "rankmath" }));
    expect(await watcher.until("snapshot")).toEqual(["theirs 2"]);
    await watcher.leave();
  });

  test("is refused before the instance is synchronized, and where too many are open", async () => {
    harness = await createHarness({ watches: { ...watchDefaults, maxPerTenant: 1, maxTotal: 2 } });
    await expect(new Watcher().next()).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE" });
    await harness.validation.start();
    const open = [new Watcher(), new Watcher({}, harness, harness.newKey("rankmath").key)];
    for (const watcher of open) await watcher.until("synchronized");
    const tooMany = { code: "RESOURCE_EXHAUSTED", reason: "TOO_MANY_WATCHES" };
    await expect(new Watcher().next()).rejects.toMatchObject({ ...tooMany, metadata: { of: "tenant", maximum: "1" } });
    const third = new Watcher({}, harness, harness.newKey("wprocket").key);
    await expect(third.next()).rejects.toMatchObject({ ...tooMany, metadata: { of: "instance", maximum: "2" } });
    for (const watcher of open) await watcher.leave();
  });

  test("is not held up by a reader that takes nothing, who is cut off and misses nothing when it goes on", async () => {
    await start({ watches: { ...watchDefaults, slowAfterMs: 10_000, heartbeatMs: 30, maxPerTenant: 2 } });
    const other = new Watcher();
    const slow = new Watcher();
    await Promise.all([other.until("synchronized"), slow.until("synchronized")]);
    await beat();
    await slow.heartbeat((heartbeat) => asOfMs(heartbeat) === harness.clock.ms);
    // 100 KiB each: far more than a client's buffers and the connection hold.
    const limits = Array.from({ length: 1_000 }, (_, index) => ({ metric: `m${index}${"x".repeat(90)}`, maximum: 1n }));
    const large = license({ limits });
    for (let version = 2n; version <= 40n; version++) {
      await publish("nile-brokers", version, large);
      await other.until("snapshot", ({ content }) => content.case === "snapshot" && content.value.version === version);
    }
    // Once the slow one is cut off, its place is free.
    const again = await admitted({ resumeToken: slow.token });
    expect(inShort(again.first)).toBe("trading 1");
    expect(await again.watcher.until("synchronized")).toEqual(["nile-brokers 40", "synchronized"]);
    const reading = (async () => {
      for (;;) await slow.next();
    })();
    await expect(reading).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "WATCHER_TOO_SLOW",
      metadata: { limit_ms: "10000" },
    });
    await again.watcher.leave();
    await other.leave();
  });
});

describe("a watch that was cut off", () => {
  test("goes on at another instance with what it has missed", async () => {
    await start();
    const elsewhere = await harness.another();
    await elsewhere.validation.start();
    const watcher = new Watcher();
    await watcher.until("synchronized");
    await publish("cairo-capital", 2n);
    await beat();
    await watcher.heartbeat((heartbeat) => asOfMs(heartbeat) === harness.clock.ms);
    const ended = expect(watcher.heartbeat(() => false)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "SHUTTING_DOWN",
    });
    await Promise.all([harness.end(), ended]);
    await beat();
    await publish("nile-brokers", 2n);
    const again = new Watcher({ resumeToken: watcher.token }, elsewhere);
    const seen = [...(await again.until("synchronized"))];
    while (!seen.includes("nile-brokers 2")) seen.push(...(await again.until("snapshot")));
    expect(seen.filter((one) => one !== "synchronized" && one !== "cairo-capital 2")).toEqual([
      "trading 1",
      "nile-brokers 2",
    ]);
    await again.leave();
  });

  test("begins from the beginning where what it missed is not remembered, or its token is for something else", async () => {
    await start();
    const watcher = new Watcher();
    await watcher.until("synchronized");
    const { token } = watcher;
    await watcher.leave();
    // An instance that has begun since knows what is, not what has changed.
    harness.clock.ms += 5_000;
    const late = await harness.another();
    await late.validation.start();
    for (const [request, instance] of [
      [{ resumeToken: token }, late],
      [{ resumeToken: token, customerIds: ["nile-brokers"] }, harness],
    ] satisfies [Request, Instance][]) {
      const again = new Watcher(request, instance);
      expect((await again.next()).content.case).toBe("reset");
      await again.until("synchronized");
      await again.leave();
    }
    const theirs = new Watcher({ resumeToken: token }, harness, harness.newKey("rankmath").key);
    expect(await theirs.until("synchronized")).toEqual(["reset", "theirs 1", "synchronized"]);
    await theirs.leave();
  });

  test.each(["!!", "bm8gdG9rZW4"])("is told that %s never was a token", async (resumeToken) => {
    await start();
    await expect(new Watcher({ resumeToken }).next()).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [{ field: "resume_token", description: expect.stringContaining("is not a token of a watch") }],
    });
  });
});

describe("where memory has no room for all customers", () => {
  const customers = ["a", "b", "c", "d"];

  test("a watch of all reads them from licensing, and sends what events tell without asking", async () => {
    await start({ maxCustomers: 2 }, customers);
    const watcher = new Watcher();
    expect((await watcher.until("synchronized")).sort()).toEqual(
      ["reset", "trading 1", "a 1", "b 1", "c 1", "d 1", "synchronized"].sort(),
    );
    expect(harness.licensing.asked).toContain("stream of tradsys");
    harness.licensing.before = unreachable;
    for (const customerId of customers) {
      await publish(customerId, 2n);
      expect(await watcher.until("snapshot")).toEqual([`${customerId} 2`]);
    }
    await watcher.leave();
    await expect(
      new Watcher({ resumeToken: watcher.token, customerIds: ["e"] }).until("synchronized"),
    ).rejects.toMatchObject({
      reason: "DEPENDENCY_UNAVAILABLE",
    });
  });
});
