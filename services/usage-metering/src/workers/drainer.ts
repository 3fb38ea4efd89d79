import { setTimeout as delay } from "node:timers/promises";
import { asSystem } from "@licet/platform/database/database";
import { redeliveryDelayMs } from "@licet/platform/events/bus";
import { createSessionLocks } from "@licet/platform/events/session-locks";
import type { Logger } from "@licet/platform/logging";
import { unlessAborted } from "@licet/platform/rpc/abort";
import type { Context } from "../context.ts";
import { isSpooled, lastSpooled, measureSpool, readSpooled, removeSpooled } from "../store/spool.ts";

/** Hands on what is spooled. Of all drainers of a database one works at a time; the others stand by. */
export interface Drainer {
  /** Resolves when everything that was spooled before the call is in the log, by this drainer or another one. */
  drained(): Promise<void>;
  stop(): Promise<void>;
}

const LOCK_NAME = "licet-usage-spool";
/** How often an empty spool is looked at, and the longest pause after a failure, in milliseconds. */
const POLL_MS = 1_000;
/** How often it is looked whether everything is handed on, in milliseconds. */
const DRAINED_POLL_MS = 50;

/**
 * Starts to publish what is spooled, the oldest first. It does so whether or not events are spooled now, because an
 * earlier setting or another replica may have left some. Records are deleted after the bus has acknowledged them: a crash
 * in between publishes them twice, and the counter takes the second for what it is.
 *
 * @param url the system role's URL of the database, for the lock.
 */
export function startDrainer(ctx: Context, url: string, logger: Logger): Drainer {
  const stopping = new AbortController();
  const { signal } = stopping;
  const running = run(ctx, url, logger, signal);
  return {
    async drained() {
      const last = await asSystem(ctx.db, lastSpooled);
      if (last === undefined) return;
      while (await asSystem(ctx.db, (tx) => isSpooled(tx, last))) await delay(DRAINED_POLL_MS, undefined, { signal });
    },
    async stop() {
      stopping.abort(new Error("the drainer was stopped"));
      await running;
    },
  };
}

async function run(ctx: Context, url: string, logger: Logger, signal: AbortSignal): Promise<void> {
  const locks = createSessionLocks({ url, applicationName: "licet-metering-spool-lock", logger });
  while (!signal.aborted) {
    const lock = await locks.acquire(LOCK_NAME, signal);
    if (lock === undefined) break;
    await lead(ctx, logger, AbortSignal.any([signal, lock.signal]));
    ctx.metrics.observeSpool(undefined);
    await lock.release();
  }
  await locks.stop();
}

/** Publishes until `held` aborts. */
async function lead(ctx: Context, logger: Logger, held: AbortSignal): Promise<void> {
  const pause = (ms: number) => delay(ms, undefined, { signal: held }).catch(() => undefined);
  for (let failures = 0; !held.aborted; ) {
    try {
      ctx.metrics.observeSpool(await asSystem(ctx.db, measureSpool));
      const published = await publishBatch(ctx, held);
      failures = 0;
      if (published === 0) await pause(POLL_MS);
    } catch (error) {
      if (held.aborted) return;
      const retryMs = Math.min(POLL_MS, redeliveryDelayMs(failures));
      failures += 1;
      const level = failures < 5 ? "warn" : "error";
      logger[level]({ err: error, failures, retryMs }, "the spool was not drained; trying again");
      await pause(retryMs);
    }
  }
}

/** Publishes the oldest records and deletes them; returns how many. */
async function publishBatch(ctx: Context, held: AbortSignal): Promise<number> {
  const batch = await asSystem(ctx.db, readSpooled);
  if (batch.length === 0) return 0;
  // A bus that is down can take long to say so, and must not hold up the end. What it takes after that comes twice.
  await unlessAborted(held, ctx.gate.publish(batch.map(({ record }) => record)));
  await asSystem(ctx.db, (tx) =>
    removeSpooled(
      tx,
      batch.map(({ id }) => id),
    ),
  );
  return batch.length;
}
