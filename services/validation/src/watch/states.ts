import { create } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import {
  type EntitlementSnapshot,
  EntitlementSnapshotSchema,
} from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Snapshot } from "@licet/decide/entitlement";
import { toSnapshot } from "@licet/decide/from-wire";
import { snapshotToWire } from "@licet/decide/to-wire";
import { platformError } from "@licet/platform/errors";
import type { Freshness } from "../cache/freshness.ts";
import type { SnapshotCache } from "../cache/snapshots.ts";
import { licensingUnavailable } from "../errors.ts";
import type { Changes } from "./changes.ts";
import type { WatchScope } from "./resume-token.ts";

/** How many states are kept as messages, for the other watches of the tenant that are about to send them. */
const MAX_RECENT = 1_024;
/** How many customers are looked up at once for one watch. */
const AT_ONCE = 16;
/** For how long, in milliseconds, watches that begin share the list of a tenant's customers. */
const ROSTER_SHARED_MS = 10_000;
/** How many watches may read all of their tenant from licensing at once. */
const MAX_FULL_READS = 4;

/** Where a watch begins from the beginning. */
export interface Beginning {
  /** Changes from this place on may not be in the states. */
  readonly place: number;
  /** What was committed before is in the states. */
  readonly asOfMs: number;
  /** The state of every customer in question, each as new as can be when it is taken. */
  readonly states: AsyncIterable<EntitlementSnapshot>;
}

/** The present states of customers, as watches send them. */
export interface States {
  /**
   * The newest state that is known of each customer; version 0 and no licenses of one who does not exist. Never an older
   * one than was given for the same customer before.
   *
   * @throws {ServiceError} UNAVAILABLE when memory does not know one and licensing can't be asked.
   */
  of(tenant: string, customerIds: Iterable<string>): AsyncIterable<EntitlementSnapshot>;
  /**
   * Hears what an event has told, whether or not the cache has room for it.
   *
   * @param wanted whether it is news and somebody watches, so that it is to be kept; what is kept already is replaced.
   */
  told(snapshot: Snapshot, wanted: boolean): void;
  /**
   * All states of what a watch is about, and the place in the changes to go on from.
   *
   * @throws {ServiceError} as `of`; and UNAVAILABLE with OVERLOADED while others read all of their tenant from licensing.
   */
  begin(scope: WatchScope, signal: AbortSignal): Promise<Beginning>;
}

/** What {@link createStates} needs. */
export interface StatesOptions {
  readonly snapshots: Pick<SnapshotCache, "apply" | "customersOf" | "find" | "held">;
  readonly changes: Pick<Changes, "end" | "isRecent">;
  readonly freshness: Pick<Freshness, "asOfMs">;
  readonly licensing: Client<typeof LicensingService>;
}

/** Creates the states that watches send, from what the cache holds. */
export function createStates(options: StatesOptions): States {
  const { snapshots, changes, freshness } = options;
  const recent = createRecent();
  const rosters = createRosters(options);
  const full = createFullReads(options);

  const stateOf = async (tenant: string, customerId: string): Promise<EntitlementSnapshot> => {
    const held = snapshots.held(tenant, customerId);
    if (held) return recent.newest(held);
    const known = recent.get(tenant, customerId);
    if (known !== undefined) return known;
    const { snapshot } = held === null ? { snapshot: undefined } : await snapshots.find(tenant, customerId, 0n);
    if (snapshot !== undefined) return recent.newest(snapshot);
    return create(EntitlementSnapshotSchema, { tenantId: tenant, customerId });
  };

  async function* of(tenant: string, customerIds: Iterable<string>): AsyncGenerator<EntitlementSnapshot> {
    for (const some of inParts(customerIds, AT_ONCE)) {
      yield* await Promise.all(some.map((customerId) => stateOf(tenant, customerId)));
    }
  }

  return {
    of,
    told(snapshot, wanted) {
      if (wanted || recent.get(snapshot.tenant, snapshot.customerId) !== undefined) recent.newest(snapshot);
    },
    async begin({ tenant, customerIds }, signal) {
      const here = { place: changes.end, asOfMs: freshness.asOfMs() };
      if (customerIds.length > 0) return { ...here, states: of(tenant, customerIds) };
      const roster = await rosters.of(tenant);
      if (roster === undefined) return { ...here, states: full(tenant, signal, recent.newest) };
      const { place, asOfMs } = roster;
      return { place, asOfMs, states: of(tenant, roster.customerIds) };
    },
  };
}

/** The states that were sent or told last, as messages: one for all watches. Of each customer the newest. */
function createRecent() {
  const states = new Map<string, EntitlementSnapshot>();
  return {
    get: (tenant: string, customerId: string) => states.get(`${tenant}/${customerId}`),
    newest(snapshot: Snapshot): EntitlementSnapshot {
      const key = `${snapshot.tenant}/${snapshot.customerId}`;
      const known = states.get(key);
      if (known !== undefined && known.version >= snapshot.version) return known;
      const state = snapshotToWire(snapshot);
      states.delete(key);
      states.set(key, state);
      const [earliest] = states.keys();
      if (states.size > MAX_RECENT && earliest !== undefined) states.delete(earliest);
      return state;
    },
  };
}

/** The customers of a tenant, and where the changes stood before they were listed. */
interface Roster extends Omit<Beginning, "states"> {
  readonly customerIds: Iterable<string>;
}

/** Lists of customers from memory, one for all who ask within a while: after a restart everybody does. */
function createRosters({ snapshots, changes, freshness }: StatesOptions) {
  const rosters = new Map<string, { readonly place: number; readonly roster: Promise<Roster | undefined> }>();
  const list = async (tenant: string, place: number): Promise<Roster | undefined> => {
    const asOfMs = freshness.asOfMs();
    const customerIds = await snapshots.customersOf(tenant);
    return customerIds && { place, asOfMs, customerIds };
  };
  return {
    of(tenant: string): Promise<Roster | undefined> {
      const shared = rosters.get(tenant);
      if (shared !== undefined && changes.isRecent(shared.place)) return shared.roster;
      const made = { place: changes.end, roster: list(tenant, changes.end) };
      rosters.set(tenant, made);
      const drop = (): void => {
        if (rosters.get(tenant) === made) rosters.delete(tenant);
      };
      setTimeout(drop, ROSTER_SHARED_MS).unref();
      return made.roster;
    },
  };
}

/** Reads all of a tenant from licensing, where memory has no room for all customers. */
function createFullReads({ snapshots, licensing }: StatesOptions) {
  let running = 0;
  return async function* full(
    tenant: string,
    signal: AbortSignal,
    newest: (snapshot: Snapshot) => EntitlementSnapshot,
  ): AsyncGenerator<EntitlementSnapshot> {
    if (running >= MAX_FULL_READS) {
      const message = "as many watches as may are reading all of their customers from licensing; try again";
      throw platformError("OVERLOADED", message, { retryAfterMs: 1_000 });
    }
    running++;
    try {
      for await (const part of licensing.streamEntitlementSnapshots({ tenantId: tenant }, { signal })) {
        for (const snapshot of part.snapshots.map(toSnapshot)) {
          // So that the cache notes its version, and takes no older one from an event that is late.
          snapshots.apply(snapshot);
          yield newest(snapshots.held(tenant, snapshot.customerId) ?? snapshot);
        }
      }
    } catch (error) {
      signal.throwIfAborted();
      throw licensingUnavailable("the customers of the tenant", error);
    } finally {
      running--;
    }
  };
}

function* inParts<T>(all: Iterable<T>, size: number): Generator<T[]> {
  let part: T[] = [];
  for (const one of all) {
    part.push(one);
    if (part.length < size) continue;
    yield part;
    part = [];
  }
  if (part.length > 0) yield part;
}
