import type { Catalog, Snapshot } from "@licet/decide/entitlement";
import { platformError } from "@licet/platform/errors";
import type { WatchLimits } from "../config.ts";
import { tooManyWatches } from "../errors.ts";
import { type Change, type Changes, createChanges, type FoundChanges } from "./changes.ts";
import { createPulse } from "./pulse.ts";
import type { WatchScope } from "./resume-token.ts";

/** One open watch. */
export interface Watch {
  /**
   * See {@link Changes.read}; of this watch's tenant, and only what is watched. What happens from now on ends `wait`.
   *
   * @throws {ServiceError} UNAVAILABLE with SHUTTING_DOWN after `stop`.
   */
  read(from: number): FoundChanges | undefined;
  /**
   * As `read`, of what customers have used. That ends no `wait`: it is looked for with each heartbeat, so that of a customer
   * who uses something all the time a watch is told no more often.
   */
  readUsage(from: number): FoundChanges | undefined;
  /** Whether a heartbeat has become due since this was last asked. */
  takeBeat(): boolean;
  /** Resolves once something watched has changed since the last `read`, a heartbeat is due, or the signal has aborted. */
  wait(): Promise<void>;
  close(): void;
}

/** What the watches of this process share. */
export interface Watches {
  readonly limits: WatchLimits;
  /** How many changes a watch deals with before it looks again. */
  readonly maxAtOnce: number;
  readonly changes: Pick<Changes, "begin" | "heard" | "end" | "isRecent" | "since">;
  /**
   * Changes of what customers have used, beside the others because they are many more. Times are those of usage metering's
   * database.
   */
  readonly usageChanges: Pick<Changes, "begin" | "heard" | "end" | "since">;
  /** Lets watches begin: what was published before this process began is known. */
  admit(): void;
  /** Tells those who watch it that a customer has changed; what has changed is in the cache already. */
  customerChanged(of: Pick<Snapshot, "tenant" | "customerId">): void;
  /** Tells a tenant's watches that a product has changed. */
  productChanged(of: Pick<Catalog, "tenant" | "product">): void;
  /** Notes that a customer has used something; what it is now is in the cache already. */
  usageChanged(of: Pick<Snapshot, "tenant" | "customerId">): void;
  /**
   * Opens a watch; close it when it is over.
   *
   * @param signal ends its waiting when it aborts.
   * @throws {ServiceError} RESOURCE_EXHAUSTED `TOO_MANY_WATCHES`; UNAVAILABLE with DEPENDENCY_UNAVAILABLE before `admit`,
   *   with SHUTTING_DOWN after `stop`.
   */
  open(scope: WatchScope, signal: AbortSignal): Watch;
  /** How many are open. */
  readonly size: number;
  /** Lets none begin any more, and those that are open end. */
  stop(): void;
}

/** How many changes a watch deals with before it looks again: what it holds of them while its reader is slow. */
const MAX_AT_ONCE = 1_000;

/** The open watches of a tenant, by what wakes them. */
interface OfTenant {
  readonly all: Set<Waiter>;
  /** Those that watch every customer. */
  readonly whole: Set<Waiter>;
  readonly byCustomer: Map<string, Set<Waiter>>;
}

/**
 * Creates the shared part of watches.
 *
 * @param partitions of the topics of snapshots and of usage.
 * @param sizes what suits most when absent: how many changes are remembered, and with how many a watch deals at once.
 */
export function createWatches(
  partitions: { readonly snapshots: number; readonly usage: number },
  limits: WatchLimits,
  sizes: { readonly maxChanges?: number; readonly maxAtOnce?: number } = {},
): Watches {
  const { maxAtOnce = MAX_AT_ONCE } = sizes;
  const changes = createChanges(partitions.snapshots, sizes.maxChanges);
  const usageChanges = createChanges(partitions.usage, sizes.maxChanges);
  const tenants = new Map<string, OfTenant>();
  const pulse = createPulse(limits.heartbeatMs);
  let state: "starting" | "open" | "stopped" = "starting";
  let total = 0;

  const admitOne = (tenant: string): OfTenant => {
    if (state === "stopped") throw ending();
    if (state === "starting") throw notYet();
    const ofTenant = tenants.get(tenant) ?? { all: new Set(), whole: new Set(), byCustomer: new Map() };
    if (ofTenant.all.size >= limits.maxPerTenant) throw tooManyWatches("tenant", limits.maxPerTenant);
    if (total >= limits.maxTotal) throw tooManyWatches("instance", limits.maxTotal);
    tenants.set(tenant, ofTenant);
    return ofTenant;
  };
  const note = (change: Change, woken: Iterable<Waiter> | undefined): void => {
    changes.note(change);
    for (const waiter of woken ?? []) waiter.wake();
  };

  return {
    limits,
    maxAtOnce,
    changes,
    usageChanges,
    admit() {
      if (state === "starting") state = "open";
    },
    customerChanged({ tenant, customerId }) {
      const ofTenant = tenants.get(tenant);
      note({ tenant, kind: "customer", name: customerId }, ofTenant?.whole);
      for (const waiter of ofTenant?.byCustomer.get(customerId) ?? []) waiter.wake();
    },
    productChanged({ tenant, product }) {
      note({ tenant, kind: "product", name: product }, tenants.get(tenant)?.all);
    },
    usageChanged({ tenant, customerId }) {
      usageChanges.note({ tenant, kind: "customer", name: customerId });
    },
    open({ tenant, customerIds }, signal) {
      const ofTenant = admitOne(tenant);
      const waiter = createWaiter();
      const leave = enter(ofTenant, waiter, customerIds);
      let due = false;
      const rest = pulse.join(() => {
        due = true;
        waiter.wake();
      });
      // Never taken away: the signal lives no longer than the watch.
      signal.addEventListener("abort", waiter.wake);
      total++;
      const wanted = customerIds.length === 0 ? undefined : new Set(customerIds);
      return {
        read(from) {
          if (state === "stopped") throw ending();
          waiter.rest();
          return changes.read(from, tenant, wanted, maxAtOnce);
        },
        readUsage: (from) => usageChanges.read(from, tenant, wanted, maxAtOnce),
        takeBeat() {
          const taken = due;
          due = false;
          return taken;
        },
        wait: () => (signal.aborted ? Promise.resolve() : waiter.wait()),
        close() {
          leave();
          rest();
          total--;
          if (ofTenant.all.size === 0) tenants.delete(tenant);
        },
      };
    },
    get size() {
      return total;
    },
    stop() {
      state = "stopped";
      for (const { all } of tenants.values()) for (const waiter of all) waiter.wake();
    },
  };
}

/** Puts a watch where changes look for those they wake; returns what takes it out again. */
function enter({ all, whole, byCustomer }: OfTenant, waiter: Waiter, customerIds: readonly string[]): () => void {
  all.add(waiter);
  if (customerIds.length === 0) whole.add(waiter);
  for (const customerId of customerIds) {
    const waiters = byCustomer.get(customerId) ?? new Set();
    byCustomer.set(customerId, waiters.add(waiter));
  }
  return () => {
    all.delete(waiter);
    whole.delete(waiter);
    for (const customerId of customerIds) {
      const waiters = byCustomer.get(customerId);
      waiters?.delete(waiter);
      if (waiters?.size === 0) byCustomer.delete(customerId);
    }
  };
}

/** One who waits to be woken; being woken while nobody waits is remembered until the next rest. */
interface Waiter {
  readonly wake: () => void;
  rest(): void;
  wait(): Promise<void>;
}

function createWaiter(): Waiter {
  let woken = false;
  let resume: (() => void) | undefined;
  return {
    wake() {
      woken = true;
      resume?.();
      resume = undefined;
    },
    rest() {
      woken = false;
    },
    wait() {
      if (woken) return Promise.resolve();
      return new Promise((resolve) => {
        resume = resolve;
      });
    },
  };
}

function ending() {
  return platformError("SHUTTING_DOWN", "this instance is ending; try again");
}

function notYet() {
  const message = "this instance does not know yet what was published before it began; try again";
  return platformError("DEPENDENCY_UNAVAILABLE", message, { retryAfterMs: 500 });
}
