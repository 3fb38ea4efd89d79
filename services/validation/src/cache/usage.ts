import { setImmediate } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { create } from "@bufbuild/protobuf";
import { LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { UsageLevels as UsageLevelsMessage } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import {
  type EntitlementUsage,
  EntitlementUsageSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Usage, UsageLevels } from "@licet/decide/entitlement";
import { toUsage } from "@licet/decide/from-wire";
import { usageToWire } from "@licet/decide/to-wire";
import { createHand } from "@licet/platform/replica";
import { createFreshness } from "./freshness.ts";
import { toKey } from "./snapshot-store.ts";
import { createUsageStore } from "./usage-store.ts";

/** What customers have used, in memory, as usage metering tells it. */
export interface UsageCache {
  /**
   * What is known of a customer's usage. Undefined as long as usage metering has told nothing, and for a customer of whom
   * nothing is in memory once what others have used was dropped for want of room.
   */
  of(tenant: string, customerId: string): Usage | undefined;
  /** As watches are told it; undefined as `of`, and for one who has used nothing. It does not count as being asked about. */
  told(tenant: string, customerId: string): EntitlementUsage | undefined;
  /** The customers of a tenant that have used something, also such as come meanwhile; it takes turns with other work. */
  customersOf(tenant: string): AsyncIterable<string>;
  /**
   * Takes over what usage metering has published, unless a higher version is known; says whether that changed anything.
   *
   * @throws {TypeError} naming the metric when a counter is no decimal.
   */
  apply(message: UsageLevelsMessage): boolean;
  /** A heartbeat with this issue time was reached in a partition. */
  heard(partition: number, issuedAtMs: number): void;
  /** How old, in milliseconds, what is known of usage is; undefined as long as usage metering has told nothing. */
  stalenessMs(): number | undefined;
  /**
   * Of all customers, what was accepted before is known; in epoch milliseconds by usage metering's clock. Undefined as `of`
   * for a customer of whom nothing is in memory.
   */
  asOfMs(): number | undefined;
}

/** What {@link createUsageCache} needs. */
export interface UsageCacheOptions {
  /** Partitions of the topic. */
  readonly partitions: number;
  /** How many customers' usage is kept; beyond it that of one who was not asked about lately goes. */
  readonly maxCustomers: number;
  /** The latest that the clock of the database can show now, in epoch milliseconds. */
  readonly latestMs: () => number;
  /** The clock that decides, in epoch milliseconds. */
  readonly now: () => number;
}

/** How many customers are looked at before other work has its turn: a millisecond's worth. */
const KEYS_PER_TURN = 10_000;

const nothingUsed: UsageLevels = new Map();

/**
 * Creates an empty cache; the worker fills it. Customers of whom nothing was told have used nothing: whoever has is on the
 * topic, which is read from its beginning.
 */
export function createUsageCache({ partitions, maxCustomers, latestMs, now }: UsageCacheOptions): UsageCache {
  const store = createUsageStore();
  const dropOne = createHand(store);
  const freshness = createFreshness(partitions, latestMs);
  const silent = new Set(Array.from({ length: partitions }, (_, partition) => partition));
  let hasDropped = false;

  const stalenessMs = (): number | undefined => (silent.size === 0 ? freshness.stalenessMs() : undefined);
  return {
    of(tenant, customerId) {
      const ageMs = stalenessMs();
      if (ageMs === undefined) return undefined;
      const known = store.get(toKey(tenant, customerId));
      if (known === undefined && hasDropped) return undefined;
      return { levels: known?.levels ?? nothingUsed, asOfMs: now() - ageMs };
    },
    told(tenant, customerId) {
      const known = store.peek(toKey(tenant, customerId));
      if (silent.size > 0 || known === undefined || known.levels.size === 0) return undefined;
      return usageToWire({ customerId, ...known, asOfMs: freshness.asOfMs() });
    },
    async *customersOf(tenant) {
      const prefix = toKey(tenant, "");
      let looked = 0;
      for (const key of store.keys()) {
        if (key.startsWith(prefix)) yield key.slice(prefix.length);
        if (++looked % KEYS_PER_TURN === 0) await setImmediate();
      }
    },
    apply(message) {
      const { tenantId, customerId, version } = message;
      const key = toKey(tenantId, customerId);
      const known = store.peek(key);
      // An equal one may tell of a window that has begun since.
      if (known !== undefined && known.version > version) return false;
      const levels = toLevels(message);
      if (known?.version === version && isDeepStrictEqual(known.levels, levels)) return false;
      if (known === undefined && store.size >= maxCustomers) hasDropped = dropOne() !== undefined || hasDropped;
      store.set(key, { version, levels });
      return true;
    },
    heard(partition, issuedAtMs) {
      silent.delete(partition);
      freshness.heard(partition, issuedAtMs);
    },
    stalenessMs,
    asOfMs: () => (silent.size > 0 || hasDropped ? undefined : freshness.asOfMs()),
  };
}

function toLevels({ customerId, levels }: UsageLevelsMessage): UsageLevels {
  const counters = levels.flatMap(({ metric, licenseId, ...level }) => [
    { metric, licenseId, window: LimitWindow.PER_DAY, windowStart: level.dayStart, used: level.dayUsed },
    { metric, licenseId, window: LimitWindow.PER_MONTH, windowStart: level.monthStart, used: level.monthUsed },
    { metric, licenseId, window: LimitWindow.LIFETIME, used: level.lifetimeUsed },
  ]);
  return toUsage(create(EntitlementUsageSchema, { customerId, levels: counters }), 0).levels;
}
