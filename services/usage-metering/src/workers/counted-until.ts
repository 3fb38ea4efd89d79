import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { asSystem } from "@licet/platform/database/database";
import type { Position } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import type { Context } from "../context.ts";
import { CONSUMER } from "../log.ts";
import { listOffsets } from "../store/offsets.ts";
import { lookAtSpool } from "../store/spool.ts";

/** A moment at which nothing was spooled, and where the log ended after it: all that was accepted before lies before. */
interface Mark {
  readonly at: Date;
  readonly ends: readonly Position[];
}

const { name: topic } = topicOf(UsageTrackedSchema);

/**
 * Creates what tells, by the database's clock, a moment so that each event accepted before it is counted; undefined where
 * it knows of none that is later than the one it told last. While counting is behind, it waits for the mark that it set
 * first, so that the moment moves on as long as something is counted.
 */
export function createCountedUntil(ctx: Context): () => Promise<Date | undefined> {
  let awaited: Mark | undefined;
  return async () => {
    const mark = await setMark(ctx);
    const counted = await asSystem(ctx.db, (tx) => listOffsets(tx, CONSUMER, topic));
    const reached = ({ ends }: Mark): boolean =>
      ends.every(({ partition, offset }) => (counted.get(partition) ?? 0n) >= offset);
    if (mark !== undefined && reached(mark)) {
      awaited = undefined;
      return mark.at;
    }
    if (awaited !== undefined && !reached(awaited)) return undefined;
    const at = awaited?.at;
    awaited = mark;
    return at;
  };
}

async function setMark(ctx: Context): Promise<Mark | undefined> {
  // In this order: what is taken out of the spool later than looked at is in the log by then.
  const { at, isEmpty } = await asSystem(ctx.db, lookAtSpool);
  return isEmpty ? { at, ends: await ctx.bus.endOffsets([topic]) } : undefined;
}
