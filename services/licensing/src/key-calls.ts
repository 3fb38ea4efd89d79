import { asSystem, type Databases, inTenant } from "@licet/platform/database/database";
import { platformError } from "@licet/platform/errors";
import type { Logger } from "@licet/platform/logging";
import type { Allowance } from "@licet/platform/rpc/rate-limit";
import { blockOf, dayEndsIn, dayOf, MAX_BLOCK } from "./domain/call-blocks.ts";
import type { ProvedKey } from "./known-keys.ts";
import { type KeyDay, returnKeyCalls, takeKeyCalls } from "./store/key-calls.ts";
import type { DB } from "./store/schema.ts";

/** Keys whose calls are kept in memory; beyond it the one used least recently goes, and what it held is given back. */
const MAX_KEYS = 50_000;
/** How often what is not used is looked for, and for how long a key has to rest before what it holds is given back. */
const SWEEP_MS = 15_000;
const IDLE_MS = 30_000;
/** For how long a key without calls is refused without asking again: another replica may have given some back. */
const ASK_AGAIN_MS = 10_000;
/** Keys given back for in one statement, and statements of one sweep. */
const BATCH = 500;
const MAX_BATCHES = 20;
/** Blocks that one call waits for: others may be quicker to use them. */
const MAX_WAITS = 20;

/** The calls that license keys may make in a day, of which this replica holds blocks. */
export interface KeyCalls {
  /**
   * Takes one call of today, from memory or a block of the database.
   *
   * @returns whether there was one, and how far the key has used what it may
   */
  take(key: ProvedKey): Promise<Allowance & { readonly taken: boolean }>;
  /** Gives back what keys hold that are not used. */
  sweep(): Promise<void>;
  start(): void;
  /** Gives back everything. */
  stop(): Promise<void>;
}

/** What {@link createKeyCalls} needs. */
export interface KeyCallsOptions {
  readonly db: Databases<DB>;
  /** The calls that a key may make in a day of UTC. */
  readonly limit: number;
  readonly now: () => Date;
  readonly logger: Logger;
  /** Keys kept at most; what suits most when absent. */
  readonly maxKeys?: number;
}

/** Calls of a key that were taken and not made. */
type Unused = KeyDay & { readonly count: number };

interface Held extends ProvedKey {
  day: string;
  /** Calls that this replica holds and nobody has made. */
  count: number;
  /** Calls that no replica had taken when the database was last asked. */
  free: number;
  /** How many it would take for calls to come: more with each block of the day. */
  wanted: number;
  /** Calls that wait for a block. */
  waiting: number;
  asking: Promise<void> | undefined;
  /** The key had none left: until then nobody is asked again, in epoch milliseconds. */
  refusedUntilMs: number;
  usedAtMs: number;
}

/**
 * Creates the calls of a replica. Calls are taken from Postgres in blocks, under the lock of the key's row, and used in
 * memory: so all replicas together let through what the limit is and never more, without a write for each call. What a
 * replica takes and does not use is given back when the key rests or the replica ends; what a killed one held is lost
 * until the day is over.
 */
export function createKeyCalls(options: KeyCallsOptions): KeyCalls {
  const { limit, now, logger, maxKeys = MAX_KEYS } = options;
  const keys = new Map<string, Held>();
  /** Of keys that had to go. */
  let homeless: Unused[] = [];
  let timer: NodeJS.Timeout | undefined;
  let sweeping: Promise<void> = Promise.resolve();

  const heldOf = (key: ProvedKey, day: string): Held => {
    let held = keys.get(key.keyId);
    if (held === undefined) held = fresh(key, day);
    else keys.delete(key.keyId);
    keys.set(key.keyId, held);
    if (keys.size > maxKeys) dropFirst(keys, homeless);
    if (held.day !== day) Object.assign(held, ofDay(day));
    return held;
  };

  const giveBack = async (all: boolean): Promise<void> => {
    const unused = ofOneDay([...homeless, ...takeIdle(keys, now(), all)], dayOf(now()));
    homeless = unused.slice(MAX_BATCHES * BATCH);
    try {
      for (let first = 0; first < Math.min(unused.length, MAX_BATCHES * BATCH); first += BATCH) {
        await asSystem(options.db, (tx) => returnKeyCalls(tx, unused.slice(first, first + BATCH)));
      }
    } catch (error) {
      // Nor are they offered again: the first attempt may have succeeded.
      logger.warn({ err: error }, "calls of license keys can't be given back; they are lost until the day is over");
    }
  };

  const sweep = (all: boolean): Promise<void> => {
    sweeping = sweeping.then(() => giveBack(all));
    return sweeping;
  };

  return {
    async take(key) {
      for (let waits = 0; waits < MAX_WAITS; waits++) {
        const at = now();
        const held = heldOf(key, dayOf(at));
        held.usedAtMs = at.getTime();
        const taken = held.count > 0;
        if (taken) held.count--;
        if (taken || held.refusedUntilMs > at.getTime()) {
          return { taken, limit, remaining: held.count + held.free, resetMs: dayEndsIn(at) };
        }
        await waitForBlock(options, held);
      }
      throw platformError("OVERLOADED", "too many calls are made with this key at once; try again", {
        retryAfterMs: 250,
      });
    },
    sweep: () => sweep(false),
    start() {
      timer = setInterval(() => void sweep(false), SWEEP_MS);
      timer.unref();
    },
    async stop() {
      clearInterval(timer);
      await sweep(true);
      homeless = [];
    },
  };
}

/** Waits until the key holds something or is known to have nothing left; all who wait share one question. */
async function waitForBlock(options: KeyCallsOptions, held: Held): Promise<void> {
  held.waiting++;
  try {
    held.asking ??= takeBlock(options, held).finally(() => {
      held.asking = undefined;
    });
    await held.asking;
  } finally {
    held.waiting--;
  }
}

async function takeBlock({ db, limit, now }: KeyCallsOptions, held: Held): Promise<void> {
  const { tenantId, keyId, day, wanted } = held;
  // Who waits is counted when the row is locked: whoever has come meanwhile is served too.
  const decide = (taken: number) => blockOf({ limit, taken, wanted, waiting: held.waiting });
  const { block, taken } = await inTenant(db, tenantId, (tx) => takeKeyCalls(tx, { tenantId, keyId, day }, decide));
  // The day has changed meanwhile: what was taken is of no use.
  if (held.day !== day) return;
  held.count += block;
  held.free = Math.max(0, limit - taken);
  held.wanted = Math.min(MAX_BLOCK, wanted * 2);
  if (block === 0) held.refusedUntilMs = now().getTime() + Math.min(ASK_AGAIN_MS, dayEndsIn(now()));
}

/** A key on a day of which nothing was taken. It begins with one call: most products ask once a day. */
function ofDay(day: string): Pick<Held, "day" | "count" | "free" | "wanted" | "refusedUntilMs"> {
  return { day, count: 0, free: 0, wanted: 1, refusedUntilMs: 0 };
}

function fresh({ tenantId, keyId }: ProvedKey, day: string): Held {
  return { tenantId, keyId, ...ofDay(day), waiting: 0, asking: undefined, usedAtMs: 0 };
}

/** Takes away what resting keys hold, and forgets those. */
function takeIdle(keys: Map<string, Held>, now: Date, all: boolean): Unused[] {
  const idle: Unused[] = [];
  for (const [keyId, held] of keys) {
    const resting = now.getTime() - held.usedAtMs >= IDLE_MS;
    if (held.asking !== undefined || !(resting || all)) continue;
    keys.delete(keyId);
    if (held.count > 0) idle.push({ tenantId: held.tenantId, keyId, day: held.day, count: held.count });
    held.count = 0;
  }
  return idle;
}

/** Drops the key used least recently for which nothing is asked; what it holds goes to the homeless ones, as many as there may be keys. */
function dropFirst(keys: Map<string, Held>, homeless: Unused[]): void {
  for (const [keyId, held] of keys) {
    if (held.asking !== undefined) continue;
    keys.delete(keyId);
    const { tenantId, day, count } = held;
    if (count > 0 && homeless.length < MAX_KEYS) homeless.push({ tenantId, keyId, day, count });
    held.count = 0;
    return;
  }
}

/** The unused calls of a day, each key once. */
function ofOneDay(unused: readonly Unused[], day: string): Unused[] {
  const byKey = new Map<string, Unused>();
  for (const each of unused) {
    if (each.day !== day) continue;
    byKey.set(each.keyId, { ...each, count: each.count + (byKey.get(each.keyId)?.count ?? 0) });
  }
  return [...byKey.values()];
}
