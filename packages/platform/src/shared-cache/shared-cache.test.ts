import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { Redis } from "ioredis";
import { createLogger } from "../logging.ts";
import { describeRedis } from "../testing/redis.ts";
import { startRedis, type TestRedis } from "../testing/redis-server.ts";
import { sharedCacheConformance, sharedValue } from "../testing/shared-cache-conformance.ts";
import { until } from "../testing/until.ts";
import { createRedisCache } from "./redis.ts";
import { noSharedCache, type SharedCache } from "./shared-cache.ts";

const logger = createLogger({ level: "silent", name: "shared-cache-test" });
const prefix = "licet:test:";

/** A connected cache; what it is put comes back, also where a busy machine takes its time. */
async function open(url: string, commandTimeoutMs = 10_000): Promise<SharedCache> {
  const cache = createRedisCache({ url, prefix, logger, commandTimeoutMs });
  await connected(cache);
  return cache;
}

function connected(cache: SharedCache): Promise<void> {
  return until("the cache answers", async () => {
    await cache.put("probe", sharedValue(1n));
    return (await cache.get("probe")) !== undefined;
  });
}

sharedCacheConformance("no cache", false, async () => noSharedCache);

describeRedis("Redis", "any", () => {
  let own: TestRedis | undefined;
  beforeAll(async () => {
    if (process.env.REDIS_URL === undefined) own = await startRedis();
  });
  afterAll(() => own?.kill());
  sharedCacheConformance("Redis", true, () => open(process.env.REDIS_URL ?? own?.url ?? ""));
});

describeRedis("a Redis that is harmed", "own", () => {
  let redis: TestRedis;
  let admin: Redis;
  beforeAll(async () => {
    redis = await startRedis();
    admin = new Redis(redis.url);
    admin.on("error", () => undefined);
  });
  afterAll(async () => {
    admin.disconnect();
    await redis.kill();
  });

  test.each([
    ["version", "0000000000000000009"],
    ["moment", "0000000000009999"],
    ["bytes", "other"],
    ["checksum", ""],
    ["version", "nonsense"],
  ])("a value whose %s was changed to %j is no value, and can be put again", async (field, text) => {
    const cache = await open(redis.url);
    await cache.put("damaged", sharedValue(7n));
    await admin.hset(`${prefix}damaged`, field, text);
    expect(await cache.get("damaged")).toBeUndefined();
    await cache.put("damaged", sharedValue(7n));
    expect((await cache.get("damaged"))?.version).toBe(7n);
    await cache.stop();
  });

  test("a value of another key is no value", async () => {
    const cache = await open(redis.url);
    await cache.put("one", sharedValue(1n));
    await admin.copy(`${prefix}one`, `${prefix}two`);
    expect(await cache.get("two")).toBeUndefined();
    await cache.stop();
  });

  test("a value stays for an hour", async () => {
    const cache = await open(redis.url);
    await cache.put("lasting", sharedValue(1n));
    const ms = await admin.pttl(`${prefix}lasting`);
    expect(ms).toBeGreaterThan(3_590_000);
    expect(ms).toBeLessThanOrEqual(3_600_000);
    await cache.stop();
  });

  test("flushed, frozen, killed and restarted under load, it costs answers and time, and never an error", async () => {
    const cache = await open(redis.url, 500);
    let running = true;
    const calls = Array.from({ length: 8 }, () => 0);
    const load = async (client: number): Promise<void> => {
      for (let version = 1n; running; version++) {
        await cache.put(`load-${client}`, sharedValue(version));
        const found = await cache.get(`load-${client}`);
        if (found !== undefined) expect(found.version).toBeLessThanOrEqual(version);
        calls[client] = Number(version);
        await new Promise(setImmediate);
      }
    };
    const loads = calls.map((_, client) => load(client));
    // No call waits for a Redis that does not answer: each client goes on.
    const more = () => {
      const from = [...calls];
      return until("every client has made more calls", () =>
        calls.every((count, client) => count > (from[client] ?? 0) + 25),
      );
    };
    await more();
    await admin.flushall();
    await more();
    redis.freeze();
    await more();
    redis.thaw();
    await connected(cache);
    await redis.kill();
    await more();
    await redis.restart();
    await connected(cache);
    running = false;
    await Promise.all(loads);
    await cache.stop();
  });
});

test("a Redis that was never there is no error", async () => {
  const cache = createRedisCache({ url: "redis://127.0.0.1:1", prefix, logger });
  await cache.put("key", sharedValue(1n));
  expect(await cache.get("key")).toBeUndefined();
  await cache.stop();
});
