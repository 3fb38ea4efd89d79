import type { Databases } from "@licet/platform/database/database";
import { purgeIdempotency } from "@licet/platform/idempotency";
import type { Logger } from "@licet/platform/logging";
import { purgeRuns } from "../store/bulk.ts";
import type { DB } from "../store/schema.ts";

const INTERVAL_MS = 60 * 60 * 1_000;
/** Rows deleted in one statement, so that none holds locks for long. */
const BATCH_ROWS = 1_000;
/** Statements of one round: the rest waits for the next one. */
const MAX_BATCHES = 100;

/** Deletes stored replies, imports and bulk operations that are older than 30 days, once an hour. */
export function createPurge(db: Databases<DB>, logger: Logger): { start(): void; stop(): Promise<void> } {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  let stopping = false;

  const round = async (): Promise<void> => {
    try {
      for (const purge of [purgeIdempotency<DB>, purgeRuns]) {
        for (let batch = 0; batch < MAX_BATCHES && !stopping; batch++) {
          if ((await purge(db, BATCH_ROWS)) < BATCH_ROWS) break;
        }
      }
    } catch (error) {
      logger.warn({ err: error }, "purging what is old failed; trying again in an hour");
    }
  };

  return {
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
