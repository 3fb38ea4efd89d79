import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, test } from "@jest/globals";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  DecisionReason,
  DecisionSource,
  type WatchEntitlementsResponse,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createLogger } from "@licet/platform/logging";
import { createRedisCache } from "@licet/platform/shared-cache/redis";
import type { SharedCache, SharedValue } from "@licet/platform/shared-cache/shared-cache";
import { describeRedis } from "@licet/platform/testing/redis";
import { startRedis } from "@licet/platform/testing/redis-server";
import { until } from "@licet/platform/testing/until";
import type { Config } from "../src/config.ts";
import {
  catalog,
  createHarness,
  type Harness,
  license,
  snapshot,
  snapshotRecord,
  startMs,
  unreachable,
} from "./harness.ts";

const feature = "basic_trading";
const revoked = license({ status: LicenseStatus.REVOKED, endedAt: timestampFromMs(startMs) });

let harness: Harness;
afterEach(() => harness.close());

/** Remembers all that it was ever given, and answers with whatever `choose` picks. */
function forgetsNothing(choose: (values: readonly SharedValue[]) => SharedValue | undefined): SharedCache {
  const values = new Map<string, SharedValue[]>();
  return {
    get: async (key) => choose(values.get(key) ?? []),
    put: async (key, value) => void values.set(key, [...(values.get(key) ?? []), value]),
    stop: async () => undefined,
  };
}

/** A replica with room for one customer, which is `first`. */
async function start(
  sharedCache: SharedCache,
  maxCustomers = 1,
  overrides: Partial<Config> = {},
): Promise<ReturnType<Harness["client"]>> {
  harness = await createHarness({ maxCustomers, ...overrides }, undefined, { sharedCache });
  harness.licensing.catalogs.push(catalog(1n, [feature]));
  for (const customer of ["first", "second"]) {
    harness.licensing.snapshots.set(`tradsys/${customer}`, snapshot(customer, 1n, license()));
  }
  await harness.validation.start();
  harness.clock.ms += 1;
  return harness.client();
}

const asked = () => harness.licensing.asked.filter((what) => what.includes("/")).map((what) => what.split("/")[1]);

describe("a replica with less room than there are customers", () => {
  test("looks in the shared cache before it asks licensing", async () => {
    const client = await start(forgetsNothing((values) => values.at(-1)));
    const sources: (DecisionSource | undefined)[] = [];
    for (const customerId of ["first", "second", "first", "second", "second"]) {
      const reply = await client.validateFeature({ customerId, feature });
      expect(reply).toMatchObject({ valid: true, version: 1n });
      sources.push(reply.source);
    }
    const { MEMORY, REDIS, LICENSING } = DecisionSource;
    expect(sources).toEqual([MEMORY, LICENSING, LICENSING, REDIS, MEMORY]);
    expect(asked()).toEqual(["second", "first"]);
  });

  test("asks once for all who wait", async () => {
    const client = await start(forgetsNothing(() => undefined));
    const replies = await Promise.all(
      Array.from({ length: 20 }, () => client.validateFeature({ customerId: "second", feature })),
    );
    for (const reply of replies) expect(reply.valid).toBe(true);
    expect(asked()).toEqual(["second"]);
  });

  test("does not believe the shared cache what an event has overtaken, in memory or not", async () => {
    const client = await start(forgetsNothing(([oldest]) => oldest));
    const ask = (customerId: string) => client.validateFeature({ customerId, feature });
    for (const customerId of ["second", "first"]) await ask(customerId);
    // `second` is out of memory and, in version 1, in the shared cache. Its revocation comes by the log.
    const second = snapshot("second", 2n, revoked);
    harness.licensing.snapshots.set("tradsys/second", second);
    await harness.publish(snapshotRecord(second), snapshotRecord(snapshot("first", 2n, revoked)));
    await until("the events have arrived", async () => (await ask("first")).version === 2n);
    await until("those of the other partition, too", async () => {
      const reply = await client.validateFeature({
        customerId: "second",
        feature,
        atLeast: { customerId: "second", version: 2n },
      });
      return reply.version === 2n;
    });
    expect(await ask("second")).toMatchObject({ reason: DecisionReason.LICENSE_REVOKED, version: 2n });
    harness.licensing.before = unreachable;
    // `first` was driven out in version 2; only version 1 was ever shared.
    await expect(ask("first")).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE" });
  });

  test("never goes back in time, whatever the shared cache answers", async () => {
    const random = (count: number) => Math.floor(Math.random() * count);
    const client = await start(
      forgetsNothing((values) => values[random(values.length)]),
      3,
    );
    let backwards = 0;
    let answered = 0;
    const sources = new Set<DecisionSource>();
    const live = async (customerId: string): Promise<void> => {
      let seen = 0n;
      for (let round = 0n; round < 60n; round++) {
        harness.clock.ms += 1;
        if (random(3) === 0) {
          const written = snapshot(customerId, round + 2n, license());
          harness.licensing.snapshots.set(`tradsys/${customerId}`, written);
          await harness.publish(snapshotRecord(written));
        }
        const reply = await client.validateFeature({ customerId, feature }).catch(() => undefined);
        if (reply === undefined) continue;
        answered++;
        sources.add(reply.source);
        if (reply.version < seen) backwards++;
        seen = reply.version;
      }
    };
    const customers = Array.from({ length: 8 }, (_, index) => `customer-${index}`);
    for (const customerId of customers) {
      harness.licensing.snapshots.set(`tradsys/${customerId}`, snapshot(customerId, 1n, license()));
    }
    await Promise.all(customers.map(live));
    expect(backwards).toBe(0);
    expect(answered).toBeGreaterThan(240);
    expect(sources).toEqual(new Set([DecisionSource.MEMORY, DecisionSource.REDIS, DecisionSource.LICENSING]));
  });
});

async function* versionsOf(watch: AsyncIterable<WatchEntitlementsResponse>): AsyncGenerator<bigint, void> {
  for await (const { content } of watch) if (content.case === "snapshot") yield content.value.version;
}

describe("what no event has confirmed for long", () => {
  /** A fence that the silence of the log, which has no relay here, does not meet. */
  const confirming = { confirmAfterMs: 60_000, fenceMs: Number.POSITIVE_INFINITY };
  const due = (): void => {
    harness.clock.ms += 1.2 * confirming.confirmAfterMs + 1_000;
  };

  test("is asked for again at licensing itself while it still answers, so that a lost event is not lost for ever", async () => {
    const client = await start(
      forgetsNothing((values) => values[0]),
      3,
      confirming,
    );
    const ask = () => client.validateFeature({ customerId: "second", feature });
    const leaving = new AbortController();
    const watched = versionsOf(client.watchEntitlements({ customerIds: ["second"] }, { signal: leaving.signal }));
    expect(await watched.next()).toMatchObject({ value: 1n });
    const unpublished = snapshot("second", 2n, revoked);
    harness.licensing.snapshots.set("tradsys/second", unpublished);
    harness.clock.ms += 0.8 * confirming.confirmAfterMs - 1_000;
    expect(await ask()).toMatchObject({ valid: true, version: 1n });
    expect(asked()).toEqual([]);
    due();
    expect(await ask()).toMatchObject({ valid: true, version: 1n, source: DecisionSource.MEMORY });
    await until("licensing has told the revocation", async () => (await ask()).version === 2n);
    expect(await ask()).toMatchObject({ reason: DecisionReason.LICENSE_REVOKED, source: DecisionSource.MEMORY });
    expect(await watched.next()).toMatchObject({ value: 2n });
    leaving.abort();
    expect(asked()).toEqual(["second"]);
    due();
    // Version 2 is in the shared cache by now. That confirms nothing.
    await ask();
    await until("licensing has confirmed it", () => asked().length === 2);
    for (let again = 0; again < 5; again++) await ask();
    expect(asked()).toEqual(["second", "second"]);
  });

  test("stays as it is, without a wait and almost without questions, while licensing is away", async () => {
    const client = await start(
      forgetsNothing(() => undefined),
      3,
      confirming,
    );
    const ask = () => client.validateFeature({ customerId: "second", feature });
    await ask();
    harness.licensing.before = unreachable;
    due();
    for (let count = 0; count < 30; count++) {
      const reply = await ask();
      expect(reply).toMatchObject({ valid: true, version: 1n, degraded: false });
    }
    expect(asked()).toEqual(["second"]);
  });
});

describeRedis("with Redis as shared cache", "own", () => {
  test("its loss, its emptiness and its return reach no caller", async () => {
    const redis = await startRedis();
    const logger = createLogger({ level: "silent", name: "caches-test" });
    const shared = createRedisCache({ url: redis.url, prefix: "licet:test:", logger });
    try {
      const client = await start(shared);
      let customer = 0;
      const sources = new Map<DecisionSource, number>();
      // Two customers take turns in the memory of one: every question goes on to the shared cache.
      const ask = async () => {
        harness.clock.ms += 1;
        const reply = await client.validateFeature({ customerId: customer++ % 2 ? "first" : "second", feature });
        expect(reply.valid).toBe(true);
        sources.set(reply.source, (sources.get(reply.source) ?? 0) + 1);
        return reply.source;
      };
      const fromRedis = () => until("Redis answers", async () => (await ask()) === DecisionSource.REDIS);
      const load = async (count: number) => {
        for (let index = 0; index < count; index++) await ask();
      };
      await fromRedis();
      await load(50);
      redis.freeze();
      await load(50);
      redis.thaw();
      await fromRedis();
      await redis.kill();
      await load(50);
      await redis.restart();
      await fromRedis();
      expect(sources.get(DecisionSource.LICENSING)).toBeGreaterThan(0);
    } finally {
      await shared.stop();
      await redis.kill();
    }
  });
});
