import { setTimeout as delay } from "node:timers/promises";
import { asSystem, inTenant } from "@licet/platform/database/database";
import { ServiceError } from "@licet/platform/errors";
import { createSessionLocks } from "@licet/platform/events/session-locks";
import type { Logger } from "@licet/platform/logging";
import type { Context } from "../context.ts";
import { settleDue } from "../lifecycle.ts";
import { settleSeats } from "../seats.ts";
import { type DueLicense, listDueLicenses, postponeLicense } from "../store/licenses.ts";
import { listLapsedLicenses } from "../store/seats.ts";

/** Between two looks for what is due. Decisions go by the clock and don't wait for it; only the telling does. */
const POLL_MS = 1_000;
/** Licenses settled between two looks. */
const BATCH = 100;
/** Rounds without a pause, so that a full table is worked off, and a stop or a lost lock is noticed. */
const MAX_BATCHES = 100;
/** For how long a license that can't be settled leaves the way to others. */
const POSTPONE_MS = 5 * 60_000;
const LOCK = "licet-license-scheduler";

/** Tells what the clock does to licenses and frees seats whose leases are over. Of all schedulers of a database one works at a time; the others stand by. */
export interface Scheduler {
  start(): void;
  /** Settles everything that is due now, whoever leads; resolves when nothing is. */
  drain(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Creates the scheduler of a database. Leading spares work and nothing else: a license is settled under its customer's
 * row lock, and what was told is noted in the transaction that tells it, so two leaders, a crash or a frozen one that
 * wakes tell nothing twice and leave nothing out.
 *
 * @param url - the system role's URL, for the lock
 */
export function createScheduler(ctx: Context, url: string, logger: Logger): Scheduler {
  const stopping = new AbortController();
  const { signal } = stopping;
  let running: Promise<void> = Promise.resolve();

  const run = async (): Promise<void> => {
    const locks = createSessionLocks({ url, applicationName: "licet-scheduler-lock", logger });
    while (!signal.aborted) {
      const lock = await locks.acquire(LOCK, signal);
      if (lock === undefined) break;
      const held = AbortSignal.any([signal, lock.signal]);
      while (!held.aborted) {
        await work(ctx, logger, held).catch((error: unknown) => {
          logger.warn({ err: error }, "what is due of licenses can't be looked for; trying again");
        });
        await delay(POLL_MS, undefined, { signal: held }).catch(() => undefined);
      }
      await lock.release();
    }
    await locks.stop();
  };

  return {
    start() {
      running = run();
    },
    drain: () => work(ctx, logger, signal),
    async stop() {
      stopping.abort(new Error("the scheduler was stopped"));
      await running;
    },
  };
}

async function work(ctx: Context, logger: Logger, signal: AbortSignal): Promise<void> {
  await settleAll(ctx, logger, signal);
  await endLeases(ctx, logger, signal);
}

async function settleAll(ctx: Context, logger: Logger, signal: AbortSignal): Promise<void> {
  for (let batch = 0; batch < MAX_BATCHES && !signal.aborted; batch++) {
    const due = await asSystem(ctx.db, async (tx) => listDueLicenses(tx, await ctx.databaseNow(tx), BATCH));
    for (const license of due) {
      if (signal.aborted) return;
      await settleOne(ctx, logger, license);
    }
    if (due.length > 0) ctx.wakeRelay();
    if (due.length < BATCH) return;
  }
}

/** Ends leases that are over, also where nobody needs their seats: others hear of it. */
async function endLeases(ctx: Context, logger: Logger, signal: AbortSignal): Promise<void> {
  for (let batch = 0; batch < MAX_BATCHES && !signal.aborted; batch++) {
    const lapsed = await asSystem(ctx.db, (tx) => listLapsedLicenses(tx, ctx.leaseClock(), BATCH));
    let failed = 0;
    for (const { tenantId, licenseId } of lapsed) {
      if (signal.aborted) return;
      try {
        await inTenant(ctx.db, tenantId, (tx) => settleSeats(ctx, tx, tenantId, licenseId));
      } catch (error) {
        if (error instanceof ServiceError && error.code === "UNAVAILABLE") throw error;
        logger.error(
          { err: error, tenant: tenantId, licenseId },
          "leases of a license can't be ended; others go first",
        );
        failed++;
      }
    }
    if (lapsed.length > failed) ctx.wakeRelay();
    // Those that failed are found again: looking further would lead in a circle.
    if (lapsed.length === failed) return;
  }
}

async function settleOne(ctx: Context, logger: Logger, due: DueLicense): Promise<void> {
  const { tenantId, licenseId } = due;
  try {
    await inTenant(ctx.db, tenantId, (tx) => settleDue(ctx, tx, tenantId, licenseId));
  } catch (error) {
    // Not this license's fault: the round ends, and the next one begins with it again.
    if (error instanceof ServiceError && error.code === "UNAVAILABLE") throw error;
    logger.error({ err: error, tenant: tenantId, licenseId }, "a license can't be settled; others go first");
    await inTenant(ctx.db, tenantId, async (tx) => {
      const now = await ctx.databaseNow(tx);
      await postponeLicense(tx, due, new Date(now.getTime() + POSTPONE_MS));
    });
  }
}
