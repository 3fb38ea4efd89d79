import { setTimeout as delay } from "node:timers/promises";
import { asSystem } from "@licet/platform/database/database";
import { createSessionLocks } from "@licet/platform/events/session-locks";
import type { Logger } from "@licet/platform/logging";
import { type OperationKey, takeTurn } from "../bulk.ts";
import type { Context } from "../context.ts";
import { listRunningOperations } from "../store/bulk.ts";

/** Between two looks for operations that run. */
const POLL_MS = 500;
/** Operations that have a turn between two looks. */
const MAX_OPERATIONS = 100;
const LOCK = "licet-bulk-operations";

/** Carries out bulk operations. Of all workers of a database one works at a time; the others stand by. */
export interface BulkWorker {
  start(): void;
  /** Carries out everything that runs now, whoever leads; resolves when nothing does. */
  drain(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Creates the worker of a database. Leading spares work and nothing else: each license has its turn under the row lock of
 * its operation, which notes in the same transaction that it had it.
 *
 * @param url - the system role's URL, for the lock
 */
export function createBulkWorker(ctx: Context, url: string, logger: Logger): BulkWorker {
  const stopping = new AbortController();
  const { signal } = stopping;
  let running: Promise<void> = Promise.resolve();

  const run = async (): Promise<void> => {
    const locks = createSessionLocks({ url, applicationName: "licet-bulk-lock", logger });
    while (!signal.aborted) {
      const lock = await locks.acquire(LOCK, signal);
      if (lock === undefined) break;
      const held = AbortSignal.any([signal, lock.signal]);
      while (!held.aborted) {
        const more = await round(ctx, logger, held);
        if (!more) await delay(POLL_MS, undefined, { signal: held }).catch(() => undefined);
      }
      await lock.release();
    }
    await locks.stop();
  };

  return {
    start() {
      running = run();
    },
    async drain() {
      while (!signal.aborted && (await round(ctx, logger, signal)));
    },
    async stop() {
      stopping.abort(new Error("the worker of bulk operations was stopped"));
      await running;
    },
  };
}

/** Gives each operation that runs a turn, so that a large one keeps none waiting; true when there is more to do at once. */
async function round(ctx: Context, logger: Logger, signal: AbortSignal): Promise<boolean> {
  let more = false;
  try {
    for (const key of await asSystem(ctx.db, (tx) => listRunningOperations(tx, MAX_OPERATIONS))) {
      if (signal.aborted) return false;
      more = (await turn(ctx, logger, key, signal)) || more;
    }
  } catch (error) {
    logger.warn({ err: error }, "bulk operations can't be looked for; trying again");
  }
  return more;
}

async function turn(ctx: Context, logger: Logger, key: OperationKey, signal: AbortSignal): Promise<boolean> {
  try {
    return await takeTurn(ctx, key, signal);
  } catch (error) {
    logger.warn({ err: error, ...key }, "a bulk operation can't go on; trying again");
    return false;
  } finally {
    ctx.wakeRelay();
  }
}
