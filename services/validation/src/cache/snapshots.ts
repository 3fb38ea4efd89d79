import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TENANT_HEADER } from "@licet/platform/credentials";
import { ServiceError } from "@licet/platform/errors";
import type { Logger } from "@licet/platform/logging";
import { createReplica, type Replica } from "@licet/platform/replica";
import type { SharedCache } from "@licet/platform/shared-cache/shared-cache";
import type { Config } from "../config.ts";
import type { Snapshot } from "../domain/entitlement.ts";
import { licensingUnavailable } from "../errors.ts";
import type { Freshness } from "./freshness.ts";
import { toSnapshot } from "./from-licensing.ts";
import type { LicensingClock } from "./licensing-clock.ts";

/** How many customers are remembered as unknown. */
const MAX_UNKNOWN_CUSTOMERS = 100_000;
/** How many customers may be looked up at once. */
const MAX_LOOKUPS = 256;
/** For how long, in milliseconds, licensing is not asked about facts that are too old after it did not answer. */
const AWAY_MS = 1_000;

/** Where facts came from. */
export type Source = "MEMORY" | "REDIS" | "LICENSING";

/** A customer's snapshot, where it came from and how old it may be. */
export interface FoundSnapshot {
  /** Undefined: the tenant has no such customer. */
  readonly snapshot: Snapshot | undefined;
  readonly source: Source;
  /** What was committed longer ago, in milliseconds, is in it. */
  readonly stalenessMs: number;
}

/** What every customer is entitled to: in memory (L1), in the shared cache (L2), or else at licensing (L3). */
export interface SnapshotCache {
  /**
   * The snapshot of a customer, of at least this version. From memory, as long as that is young enough; else from the
   * shared cache or licensing. Where neither can be asked, what memory has is returned with its age.
   *
   * @throws {ServiceError} UNAVAILABLE when memory has none, or not of this version, and licensing can't be asked, is
   *   asked too much, or has not got the version either.
   */
  find(tenant: string, customerId: string, atLeast: bigint): Promise<FoundSnapshot>;
  /** Takes over a snapshot that licensing has published, unless an equal or higher version is known. */
  apply(snapshot: Snapshot): void;
  /** From this moment of licensing's clock on, every change has been or will be given to `apply`. */
  completeFrom(ms: number): void;
  /** How many customers are in memory. */
  readonly size: number;
}

/** What {@link createSnapshotCache} needs. */
export interface SnapshotCacheOptions {
  readonly licensing: Client<typeof LicensingService>;
  readonly shared: SharedCache;
  readonly freshness: Freshness;
  readonly licensingClock: LicensingClock;
  readonly config: Config;
  readonly logger: Logger;
}

/** A snapshot in memory. */
interface Entry {
  readonly version: bigint;
  readonly snapshot: Snapshot;
  /** Who told it, or has confirmed it since. */
  source: Source;
  /** When licensing told or confirmed it, by its clock in epoch milliseconds; 0: only events did. */
  readAtMs: number;
}

/** Creates an empty cache; the worker fills it. */
export function createSnapshotCache(options: SnapshotCacheOptions): SnapshotCache {
  const { freshness, licensingClock, config } = options;
  const replica: Replica<Entry> = createReplica<Entry>({
    name: "customers",
    lookUp: async (key, atLeast) => {
      const found = (await askShared(options, replica, key, atLeast)) ?? (await askLicensing(options, key));
      if (found !== undefined) confirm(replica.peek(key) ?? undefined, found);
      return found;
    },
    maxEntries: config.maxCustomers,
    maxAbsent: MAX_UNKNOWN_CUSTOMERS,
    absentTtlMs: config.unknownCustomerTtlMs,
    maxLookups: MAX_LOOKUPS,
    now: licensingClock.latestMs,
    steadyMs: () => licensingClock.now().steadyMs,
  });
  const told = (entry: Entry | undefined, source: Source): FoundSnapshot => {
    if (entry !== undefined) {
      return { snapshot: entry.snapshot, source, stalenessMs: freshness.stalenessMs(entry.readAtMs) };
    }
    // That there is no such customer was heard from licensing, and is not believed for longer.
    return { snapshot: undefined, source, stalenessMs: Math.min(freshness.stalenessMs(), config.unknownCustomerTtlMs) };
  };
  const lookUp = async (key: string, atLeast: bigint): Promise<FoundSnapshot> => {
    const entry = await replica.refresh(key, atLeast);
    return told(entry, entry?.source ?? "LICENSING");
  };
  const lookUpInTime = createAttempt(options);

  return {
    async find(tenant, customerId, atLeast) {
      const key = toKey(tenant, customerId);
      if (atLeast > 0n) await replica.arrival(key, atLeast, config.arrivalTimeoutMs);
      const held = replica.peek(key);
      if (held === undefined || (held?.version ?? 0n) < atLeast) return lookUp(key, atLeast);
      const known = told(held ?? undefined, "MEMORY");
      if (known.stalenessMs < config.fenceMs) return known;
      const asked = await lookUpInTime(() => lookUp(key, atLeast));
      if (asked !== undefined) return asked;
      // Meanwhile time has passed, and events may have come, or have driven it out: of what is not in memory none tell.
      const still = replica.peek(key);
      return still === undefined ? lookUp(key, atLeast) : told(still ?? undefined, "MEMORY");
    },
    apply(snapshot) {
      const { tenant, customerId, version } = snapshot;
      replica.apply(toKey(tenant, customerId), { version, snapshot, source: "MEMORY", readAtMs: 0 });
    },
    completeFrom: replica.completeFrom,
    get size() {
      return replica.size;
    },
  };
}

/** What licensing has just told is nothing newer than what is in memory: that is as young, then. */
function confirm(held: Entry | undefined, found: Entry): void {
  if (held === undefined || held.version < found.version || held.readAtMs >= found.readAtMs) return;
  held.readAtMs = found.readAtMs;
  held.source = found.source;
}

async function askShared(
  { shared, freshness, config, logger }: SnapshotCacheOptions,
  replica: Replica<Entry>,
  key: string,
  atLeast: bigint,
): Promise<Entry | undefined> {
  const value = await shared.get(key);
  if (value === undefined) return undefined;
  const { version, readAtMs, bytes } = value;
  if (version < atLeast || !replica.isCurrent(key, version, readAtMs)) return undefined;
  if (freshness.stalenessMs(readAtMs) >= config.fenceMs) return undefined;
  try {
    return toEntry(fromBinary(EntitlementSnapshotSchema, bytes), "REDIS", readAtMs);
  } catch (error) {
    logger.warn({ err: error }, "the shared cache holds a snapshot that can't be read");
    return undefined;
  }
}

async function askLicensing(
  { licensing, licensingClock, shared, config, logger }: SnapshotCacheOptions,
  key: string,
): Promise<Entry | undefined> {
  const { tenant, customerId } = splitKey(key);
  const askedAt = licensingClock.now();
  try {
    const { snapshot } = await licensing.getEntitlementSnapshot(
      { customerId },
      { headers: { [TENANT_HEADER]: tenant }, timeoutMs: config.lookUpTimeoutMs },
    );
    if (snapshot === undefined) return undefined;
    const readAtMs = snapshot.issuedAt === undefined ? 0 : Math.floor(timestampMs(snapshot.issuedAt));
    // Until the worker has compared the clocks, which it does only once the log can be reached, how old this is would
    // be told by a clock that licensing knows nothing of.
    if (readAtMs > 0 && !licensingClock.calibrated) licensingClock.calibrate(askedAt, readAtMs);
    // Nobody waits for it: a shared cache that can't take it costs others a question, and us nothing.
    void shared.put(key, {
      version: snapshot.version,
      readAtMs,
      bytes: toBinary(EntitlementSnapshotSchema, snapshot),
    });
    return toEntry(snapshot, "LICENSING", readAtMs);
  } catch (error) {
    if (error instanceof ServiceError && error.code === "NOT_FOUND") return undefined;
    logger.warn({ err: error, tenant }, "licensing can't be asked about a customer");
    throw licensingUnavailable(`customer ${JSON.stringify(customerId)}`, error);
  }
}

function toEntry(wire: EntitlementSnapshot, source: Source, readAtMs: number): Entry {
  return { version: wire.version, snapshot: toSnapshot(wire), source, readAtMs };
}

/**
 * Attempts that give up after a while, and are not made for a while after one that failed: a licensing service that is
 * away, or does not answer, must not take from each decision the time that it has. One that comes too late still fills
 * the caches.
 */
function createAttempt({ config, licensingClock }: SnapshotCacheOptions) {
  let awayUntilMs = 0;
  return async <T>(attempt: () => Promise<T>): Promise<T | undefined> => {
    if (licensingClock.now().steadyMs < awayUntilMs) return undefined;
    const { promise: timeout, resolve: giveUp } = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => giveUp(undefined), config.staleLookUpTimeoutMs);
    // Whoever asked licensing has logged why it failed.
    const result = await Promise.race([attempt().catch(() => undefined), timeout]);
    clearTimeout(timer);
    if (result === undefined) awayUntilMs = licensingClock.now().steadyMs + AWAY_MS;
    return result;
  };
}

/** A tenant's id holds no slash, so no two customers share a key. */
function toKey(tenant: string, customerId: string): string {
  return `${tenant}/${customerId}`;
}

function splitKey(key: string): { tenant: string; customerId: string } {
  const slash = key.indexOf("/");
  return { tenant: key.slice(0, slash), customerId: key.slice(slash + 1) };
}
