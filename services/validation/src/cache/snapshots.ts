import { setImmediate } from "node:timers/promises";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Snapshot } from "@licet/decide/entitlement";
import { toSnapshot } from "@licet/decide/from-wire";
import { TENANT_HEADER } from "@licet/platform/credentials";
import { ServiceError } from "@licet/platform/errors";
import type { Logger } from "@licet/platform/logging";
import { createReplica, type Replica } from "@licet/platform/replica";
import type { SharedCache } from "@licet/platform/shared-cache/shared-cache";
import type { Config } from "../config.ts";
import { licensingUnavailable } from "../errors.ts";
import { createBackstop } from "./backstop.ts";
import type { Freshness } from "./freshness.ts";
import type { LicensingClock } from "./licensing-clock.ts";
import { createSnapshotStore, type Entry, type Source, splitKey, toKey } from "./snapshot-store.ts";

/** How many customers are remembered as unknown. */
const MAX_UNKNOWN_CUSTOMERS = 100_000;
/** How many customers may be looked up at once. */
const MAX_LOOKUPS = 256;
/** For how long, in milliseconds, licensing is not asked about facts that are too old after it did not answer. */
const AWAY_MS = 1_000;
/** How many customers are looked at before other work has its turn: a millisecond's worth. */
const KEYS_PER_TURN = 10_000;

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
  /** As `find` for any version, where that needs no waiting: from memory, and young enough. Undefined otherwise. */
  findNow(tenant: string, customerId: string): FoundSnapshot | undefined;
  /** Takes over a snapshot that licensing has published, unless an equal or higher version is known; says whether it did. */
  apply(snapshot: Snapshot): boolean;
  /** The snapshot of a customer from memory, whatever its age: null for one who does not exist, undefined when others must be asked. */
  held(tenant: string, customerId: string): Snapshot | null | undefined;
  /**
   * The ids of all customers of a tenant. Undefined when memory does not hold them all. It takes turns with other work, and
   * may leave out one whose first event comes meanwhile.
   */
  customersOf(tenant: string): Promise<Iterable<string> | undefined>;
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
  /** From 0 to 1, without 1; `Math.random` when absent. */
  readonly random?: () => number;
  /** Called when the backstop has found a customer's newer version, of which no event has told so far. */
  readonly onMissed?: (customer: { readonly tenant: string; readonly customerId: string }) => void;
}

/** Creates an empty cache; the worker fills it. */
export function createSnapshotCache(options: SnapshotCacheOptions): SnapshotCache {
  const { freshness, licensingClock, config, logger } = options;
  const steadyMs = (): number => licensingClock.now().steadyMs;
  const backstop = createBackstop({ ...config, steadyMs, random: options.random ?? Math.random });
  const toEntry = ({ snapshot, source, readAtMs }: Told): Entry => {
    return { version: snapshot.version, snapshot, source, readAtMs, dueAtS: backstop.dueAtS() };
  };
  const replica: Replica<Entry> = createReplica<Entry>({
    name: "customers",
    lookUp: async (key, atLeast) => {
      // What others have heard confirms nothing: they may have missed the same event.
      const shared = backstop.isAsking(key) ? undefined : await askShared(options, replica, key, atLeast);
      const found = shared ?? (await askLicensing(options, key));
      return found && toEntry(found);
    },
    confirm: (held, found) => confirmed(held, found, backstop.dueAtS()),
    store: createSnapshotStore(),
    maxEntries: config.maxCustomers,
    maxAbsent: MAX_UNKNOWN_CUSTOMERS,
    absentTtlMs: config.unknownCustomerTtlMs,
    maxLookups: MAX_LOOKUPS,
    now: licensingClock.latestMs,
    steadyMs,
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
  const confirmLater = (key: string, held: Entry): void =>
    backstop.confirm(key, async () => {
      const version = (await replica.refresh(key))?.version;
      if (version === held.version) return;
      options.onMissed?.(splitKey(key));
      // An event may be on its way just now; if this comes often, events are lost.
      logger.info({ ...splitKey(key), held: held.version, version }, "licensing knew a customer's newer version");
    });
  /** What memory has, or that the customer is unknown; undefined where that is too old. */
  const whileYoung = (key: string, held: Entry | null): FoundSnapshot | undefined => {
    const known = told(held ?? undefined, "MEMORY");
    if (known.stalenessMs >= config.fenceMs) return undefined;
    if (held !== null && backstop.isDue(held.dueAtS)) confirmLater(key, held);
    return known;
  };

  return {
    async find(tenant, customerId, atLeast) {
      const key = toKey(tenant, customerId);
      if (atLeast > 0n) await replica.arrival(key, atLeast, config.arrivalTimeoutMs);
      const held = replica.peek(key);
      if (held === undefined || (held?.version ?? 0n) < atLeast) return lookUp(key, atLeast);
      const young = whileYoung(key, held);
      if (young !== undefined) return young;
      const asked = await lookUpInTime(() => lookUp(key, atLeast));
      if (asked !== undefined) return asked;
      // Meanwhile time has passed, and events may have come, or have driven it out: of what is not in memory none tell.
      const still = replica.peek(key);
      return still === undefined ? lookUp(key, atLeast) : told(still ?? undefined, "MEMORY");
    },
    findNow(tenant, customerId) {
      const key = toKey(tenant, customerId);
      const held = replica.peek(key);
      return held === undefined ? undefined : whileYoung(key, held);
    },
    apply(snapshot) {
      const { tenant, customerId } = snapshot;
      return replica.apply(toKey(tenant, customerId), toEntry({ snapshot, source: "MEMORY", readAtMs: 0 }));
    },
    held(tenant, customerId) {
      const entry = replica.peek(toKey(tenant, customerId));
      if (entry === undefined) return replica.size < config.maxCustomers ? null : undefined;
      return entry?.snapshot ?? null;
    },
    async customersOf(tenant) {
      const found = await withPrefix(replica.keys(), toKey(tenant, ""));
      // One that is full may have left some out.
      return replica.size < config.maxCustomers ? found : undefined;
    },
    completeFrom: replica.completeFrom,
    get size() {
      return replica.size;
    },
  };
}

/** What follows the prefix in the keys that have it. */
async function withPrefix(keys: Iterable<string>, prefix: string): Promise<Set<string>> {
  const found = new Set<string>();
  let looked = 0;
  for (const key of keys) {
    if (key.startsWith(prefix)) found.add(key.slice(prefix.length));
    if (++looked % KEYS_PER_TURN === 0) await setImmediate();
  }
  return found;
}

/** A snapshot as it was told, by whom, and when licensing read it. */
type Told = Pick<Entry, "snapshot" | "source" | "readAtMs">;

/** What licensing has just told is nothing newer than what is in memory: that is as young, then. */
function confirmed(held: Entry, found: Entry | undefined, dueAtS: number): Entry {
  if (found === undefined || held.readAtMs >= found.readAtMs) return { ...held, dueAtS };
  return { ...held, readAtMs: found.readAtMs, source: found.source, dueAtS };
}

async function askShared(
  { shared, freshness, config, logger }: SnapshotCacheOptions,
  replica: Replica<Entry>,
  key: string,
  atLeast: bigint,
): Promise<Told | undefined> {
  const value = await shared.get(key);
  if (value === undefined) return undefined;
  const { version, readAtMs, bytes } = value;
  if (version < atLeast || !replica.isCurrent(key, version, readAtMs)) return undefined;
  if (freshness.stalenessMs(readAtMs) >= config.fenceMs) return undefined;
  try {
    return { snapshot: toSnapshot(fromBinary(EntitlementSnapshotSchema, bytes)), source: "REDIS", readAtMs };
  } catch (error) {
    logger.warn({ err: error }, "the shared cache holds a snapshot that can't be read");
    return undefined;
  }
}

async function askLicensing(
  { licensing, licensingClock, shared, config, logger }: SnapshotCacheOptions,
  key: string,
): Promise<Told | undefined> {
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
    return { snapshot: toSnapshot(snapshot), source: "LICENSING", readAtMs };
  } catch (error) {
    if (error instanceof ServiceError && error.code === "NOT_FOUND") return undefined;
    logger.warn({ err: error, tenant }, "licensing can't be asked about a customer");
    throw licensingUnavailable(`customer ${JSON.stringify(customerId)}`, error);
  }
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
