import type { Client } from "@connectrpc/connect";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { createLogger } from "@licet/platform/logging";
import type { SharedCache, SharedValue } from "@licet/platform/shared-cache/shared-cache";
import { createFreshness } from "@licet/validation/cache/freshness";
import { createLicensingClock } from "@licet/validation/cache/licensing-clock";
import { createSnapshotCache } from "@licet/validation/cache/snapshots";
import { defaults } from "@licet/validation/config";
import { customerId, snapshotOf, tenant } from "./cache-data.ts";
import type { Benchmark, Row } from "./report.ts";
import { createZipf, seeded } from "./zipf.ts";

/** What one course asks about, and how much of it memory has room for. */
interface Course {
  readonly customers: number;
  readonly room: number;
  readonly exponent: number;
}

/**
 * In the first a cache that knew the future could answer more than 99 % from memory, in the second it could not. Of twice
 * as many customers as there is room for, memory still knows the versions, so that the shared cache can be believed.
 */
const courses: readonly Course[] = [
  { customers: 100_000, room: 50_000, exponent: 1.4 },
  { customers: 100_000, room: 50_000, exponent: 1.0 },
];
/**
 * Questions that bring the cache into its order, after each customer was asked about once, and those that count. With a
 * tenth of them it is still half full of customers that nobody has asked about again.
 */
const warmUps = 5_000_000;
const questions = 1_000_000;
const minHits = 0.99;
const seed = 42;

/**
 * How much memory answers when it has no room for all customers, and that licensing, and so its database, is out of the
 * way: what is not in memory is in the shared cache. The baseline is the cache that knows which customers are asked about
 * most, and keeps just these.
 */
export const cacheHit: Benchmark = {
  about: "a Zipf set of customers larger than memory has room for: answers from memory, against the best fixed choice",
  async run() {
    const rows: Row[] = [];
    for (const course of courses) rows.push(...(await play(course)));
    return rows;
  },
};

async function play({ customers, room, exponent }: Course): Promise<Row[]> {
  const zipf = createZipf(customers, exponent);
  const random = seeded(seed);
  // Ranks are not the order in which customers came: that would help those that keep what came first.
  const order = shuffled(customers, random);
  const { cache, asked } = createCache(room);
  const sources = { MEMORY: 0, REDIS: 0, LICENSING: 0 };
  const ask = async (rank: number): Promise<keyof typeof sources> => {
    const { snapshot, source } = await cache.find(tenant, customerId(order[rank] ?? 0), 0n);
    if (snapshot === undefined) throw new Error("a customer is unknown");
    return source;
  };
  // As in production, where replicas have filled the shared cache.
  for (let rank = 0; rank < customers; rank++) await ask(rank);
  for (let count = 0; count < warmUps; count++) await ask(zipf.draw(random()));
  const askedBefore = asked();
  const begunAt = performance.now();
  for (let count = 0; count < questions; count++) sources[await ask(zipf.draw(random()))]++;
  const micros = (1_000 * (performance.now() - begunAt)) / questions;
  const name = `${customers} customers, room for ${room}, Zipf ${exponent}`;
  console.log(
    `${name}: ${JSON.stringify(sources)} of ${questions}, ${micros.toFixed(1)} µs each, ` +
      `licensing was asked ${askedBefore} times before and ${asked() - askedBefore} times meanwhile`,
  );
  const best = zipf.shareOf(room);
  const hits = sources.MEMORY / questions;
  const possible = best > minHits;
  return [
    {
      name: `from memory: ${name}`,
      baseline: 100 * best,
      ours: 100 * hits,
      unit: "% of questions",
      target: possible ? `> ${100 * minHits} %` : "≥ 0.9 × the best fixed choice",
      met: possible ? hits > minHits : hits >= 0.9 * best,
    },
    {
      name: `without licensing: ${name}`,
      baseline: 100,
      ours: 100 * (1 - sources.LICENSING / questions),
      unit: "% of questions",
      target: "> 99 %",
      met: sources.LICENSING < (1 - minHits) * questions,
    },
  ];
}

function shuffled(count: number, random: () => number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, index) => index);
  for (let index = count - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    const moved = order[index] ?? 0;
    order[index] = order[other] ?? 0;
    order[other] = moved;
  }
  return order;
}

/** The cache of the service as it is in production, beside a licensing service that knows all and a shared cache that keeps all. */
function createCache(room: number) {
  let asked = 0;
  const licensing = {
    getEntitlementSnapshot: async ({ customerId }: { customerId: string }) => {
      asked++;
      return { snapshot: snapshotOf(Number(customerId.split("-")[1])) };
    },
  };
  const logger = createLogger({ level: "warn", name: "bench" });
  const now = (): { wallMs: number; steadyMs: number } => ({ wallMs: Date.now(), steadyMs: performance.now() });
  const licensingClock = createLicensingClock(now);
  licensingClock.calibrate(now(), Date.now());
  const freshness = createFreshness(1, licensingClock.latestMs);
  // Heartbeats are always there: what is measured is room, not age.
  freshness.begin(Date.now() + 3_600_000);
  const cache = createSnapshotCache({
    // A client has more methods than the cache calls.
    licensing: licensing as unknown as Client<typeof LicensingService>,
    shared: keepsAll(),
    freshness,
    licensingClock,
    config: { ...defaults, maxCustomers: room },
    logger,
  });
  cache.completeFrom(Date.now() - 1);
  return { cache, asked: () => asked };
}

function keepsAll(): SharedCache {
  const values = new Map<string, SharedValue>();
  return {
    get: async (key) => values.get(key),
    put: async (key, value) => void values.set(key, value),
    stop: async () => undefined,
  };
}
