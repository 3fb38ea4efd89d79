import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../logging.ts";
import type { TopicSpec } from "./bus.ts";
import { type LogDatabase, readTails, removeExpired, removeSuperseded } from "./postgres-log.ts";

/** Rows looked at in one statement, and statements for one partition in one round. */
const stepRows = 1_000;
const stepsPerRound = 100;

const keptWarning =
  "expired events are kept, because a group has not handled them: start its reader, or, if the group is no more, delete its rows of group_offset";

/** How {@link maintain} ends early and where it reports. */
export interface MaintenanceOptions {
  readonly signal: AbortSignal;
  readonly logger: Logger;
}

/**
 * Removes what the topics no longer keep: expired records, and superseded ones of compacted topics. Warns of each topic
 * whose expired records are kept because a group has not handled them.
 */
export async function maintain(
  db: LogDatabase,
  topics: readonly TopicSpec[],
  { signal, logger }: MaintenanceOptions,
): Promise<void> {
  for (const topic of topics) {
    const waiting: object[] = [];
    for (const place of await readTails(db, [topic.name])) {
      for (let step = 0; step < stepsPerRound && !signal.aborted; step++) {
        if (topic.compacted) {
          if ((await removeSuperseded(db, place, stepRows)) < stepRows) break;
          continue;
        }
        const { removed, keptFor } = await removeExpired(db, place, topic.retentionMs, stepRows);
        if (keptFor !== undefined) waiting.push({ partition: place.partition, ...keptFor });
        if (removed < stepRows) break;
      }
    }
    if (waiting.length > 0) logger.warn({ topic: topic.name, waiting }, keptWarning);
  }
}

/** Maintains the log every `everyMs` milliseconds until `signal` aborts; failures are logged and tried again. */
export async function maintainRegularly(
  db: LogDatabase,
  topics: readonly TopicSpec[],
  options: MaintenanceOptions & { readonly everyMs: number },
): Promise<void> {
  const { everyMs, signal, logger } = options;
  while (!signal.aborted) {
    await delay(everyMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    await maintain(db, topics, { signal, logger }).catch((error: unknown) => {
      logger.warn({ err: error }, "maintenance of the event log failed; it will be tried again");
    });
  }
}
