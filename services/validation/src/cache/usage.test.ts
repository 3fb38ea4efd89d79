import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { type MetricLevelSchema, UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { UsageLevel } from "@licet/decide/entitlement";
import fc from "fast-check";
import { createUsageCache, type UsageCache } from "./usage.ts";
import { createUsageStore } from "./usage-store.ts";

const dayMs = 86_400_000;
const day = Date.parse("2030-06-15T00:00:00Z");
const month = Date.parse("2030-06-01T00:00:00Z");
const partitions = 2;

function cache(maxCustomers = 10, clock = { ms: day }): UsageCache {
  const now = () => clock.ms;
  return createUsageCache({ partitions, maxCustomers, latestMs: () => clock.ms + 5, now });
}

/** A cache that has heard from usage metering. */
function awake(maxCustomers?: number, clock?: { ms: number }): UsageCache {
  const usage = cache(maxCustomers, clock);
  for (let partition = 0; partition < partitions; partition++) usage.heard(partition, day - 1_000);
  return usage;
}

function told(customerId: string, version: bigint, level: MessageInitShape<typeof MetricLevelSchema> = {}) {
  const dayStart = timestampFromMs(day);
  const monthStart = timestampFromMs(month);
  const usual = { metric: "api_calls", dayStart, dayUsed: "1", monthStart, monthUsed: "2", lifetimeUsed: "3" };
  return create(UsageLevelsSchema, { tenantId: "tradsys", customerId, version, levels: [{ ...usual, ...level }] });
}

const usedThisDay = (usage: UsageCache, customerId: string): string | undefined =>
  usage
    .of("tradsys", customerId)
    ?.levels.get("api_calls")
    ?.find(({ window }) => window === "PER_DAY")?.used;

describe("the cache of usage", () => {
  test("tells the windows of a customer, and how old they are by the clock that decides", () => {
    const clock = { ms: day };
    const usage = awake(10, clock);
    usage.apply(told("ada", 1n, { licenseId: "l1" }));
    clock.ms += 500;
    expect(usage.of("tradsys", "ada")).toEqual({
      // The database's clock may show 5 ms more: so much older may it be.
      asOfMs: day - 1_005,
      levels: new Map([
        [
          "api_calls",
          [
            { window: "PER_DAY", licenseId: "l1", windowStartMs: day, used: "1" },
            { window: "PER_MONTH", licenseId: "l1", windowStartMs: month, used: "2" },
            { window: "LIFETIME", licenseId: "l1", windowStartMs: undefined, used: "3" },
          ],
        ],
      ]),
    });
    expect(usage.stalenessMs()).toBe(1_505);
    expect(usage.of("tradsys", "ada")?.levels).toBe(usage.of("tradsys", "ada")?.levels);
    expect(usage.of("tradsys", "bea")?.levels.size).toBe(0);
    expect(usage.of("rankmath", "ada")?.levels.size).toBe(0);
  });

  test("knows nothing until every partition has told until when it is complete", () => {
    const usage = cache();
    usage.apply(told("ada", 1n));
    usage.heard(0, day);
    expect(usage.of("tradsys", "ada")).toBeUndefined();
    expect(usage.stalenessMs()).toBeUndefined();
    usage.heard(1, day);
    expect(usedThisDay(usage, "ada")).toBe("1");
  });

  test("never goes back; an equal version may tell of a window that has begun", () => {
    const usage = awake();
    expect(usage.apply(told("ada", 5n, { dayUsed: "50" }))).toBe(true);
    expect(usage.apply(told("ada", 4n, { dayUsed: "40" }))).toBe(false);
    expect(usedThisDay(usage, "ada")).toBe("50");
    expect(usage.apply(told("ada", 5n, { dayUsed: "5" }))).toBe(true);
    expect(usedThisDay(usage, "ada")).toBe("5");
  });

  test("has room for so many, drops who was not asked about, and of them claims nothing any more", () => {
    const usage = awake(2);
    usage.apply(told("ada", 1n));
    usage.apply(told("bea", 1n));
    expect(usage.of("tradsys", "cyd")?.levels.size).toBe(0);
    expect(usedThisDay(usage, "ada")).toBe("1");
    usage.apply(told("cyd", 1n));
    expect(["ada", "bea", "cyd"].map((customerId) => usedThisDay(usage, customerId))).toEqual(["1", undefined, "1"]);
    expect(usage.of("tradsys", "bea")).toBeUndefined();
    expect(usage.of("tradsys", "nobody")).toBeUndefined();
  });

  test("takes no counter that is no decimal, and keeps what it had", () => {
    const usage = awake();
    usage.apply(told("ada", 1n));
    expect(() => usage.apply(told("ada", 2n, { monthUsed: "many" }))).toThrow(/metric api_calls/);
    expect(usedThisDay(usage, "ada")).toBe("1");
  });
});

test("what is kept in bytes comes out as it went in", () => {
  const used = fc.tuple(fc.nat(), fc.nat(999)).map(([whole, part]) => `${whole}.${part}`);
  const licenseId = fc.option(fc.oneof(fc.uuid(), fc.string({ minLength: 1 })), { nil: undefined });
  const days = fc.integer({ min: 0, max: 60_000 }).map((at) => at * dayMs);
  const anyLevel: fc.Arbitrary<UsageLevel> = fc.oneof(
    fc.record({ window: fc.constantFrom("PER_DAY", "PER_MONTH"), licenseId, windowStartMs: days, used }),
    fc.record({ window: fc.constant("LIFETIME"), licenseId, windowStartMs: fc.constant(undefined), used }),
  );
  const levels = fc.array(fc.tuple(fc.string(), fc.array(anyLevel))).map((entries) => new Map(entries));
  const anyUsage = fc.record({ version: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), levels });
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom("a", "b", "c"), anyUsage), { minLength: 1 }), (course) => {
      const store = createUsageStore(1);
      for (const [key, usage] of course) store.set(key, usage);
      for (const [key, usage] of new Map(course)) expect(store.get(key)).toEqual(usage);
    }),
  );
});
