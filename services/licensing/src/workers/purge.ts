import { asSystem, type Databases } from "@licet/platform/database/database";
import { purgeIdempotency } from "@licet/platform/idempotency";
import type { Logger } from "@licet/platform/logging";
import { dayOf } from "../domain/call-blocks.ts";
import { purgeRuns } from "../store/bulk.ts";
import { purgeKeyCalls } from "../store/key-calls.ts";
import type { DB } from "../store/schema.ts";

const INTERVAL_MS = 60 * 60 * 1_000;
/** Rows deleted in one statement, so that none holds locks for long. */
const BATCH_ROWS = 1_000;
/** Statements of one round: the rest waits for the next one. */
const MAX_BATCHES = 100;

/**
 * For how long the calls of a day are kept after it, in milliseconds: no replica's clock is so far behind that it still
 * counts by them.
 */
const CALLS_KEPT_MS = 86_400_000;

/** What is deleted once an hour. */
export interface Purge {
  start(): void;
  /** Deletes what is due now. */
  round(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Deletes stored replies, imports and bulk operations that are older than 30 days, and the calls of license keys of days
 * before yesterday, once an hour.
 */
export function createPurge(db: Databases<DB>, now: () => Date, logger: Logger): Purge {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  let stopping = false;

  /** One that fails keeps none of the others from their turn. */
  const all = async (what: string, purgeSome: () => Promise<number>): Promise<void> => {
    try {
      for (let batch = 0; batch < MAX_BATCHES && !stopping; batch++) if ((await purgeSome()) < BATCH_ROWS) return;
    } catch (error) {
      logger.warn({ err: error }, `purging ${what} failed; trying again in an hour`);
    }
  };
  const round = async (): Promise<void> => {
    await all("stored replies", () => purgeIdempotency(db, BATCH_ROWS));
    await all("imports and bulk operations", () => purgeRuns(db, BATCH_ROWS));
    const yesterday = dayOf(new Date(now().getTime() - CALLS_KEPT_MS));
    await all("calls of license keys", () => asSystem(db, (tx) => purgeKeyCalls(tx, yesterday, BATCH_ROWS)));
  };

  return {
    round,
    start() {
      timer = setInterval(() => {
        running = round();
      }, INTERVAL_MS);
      timer.unref();
    },
    async stop() {
      stopping = true;
      clearInterval(timer);
      await running;
    },
  };
}
