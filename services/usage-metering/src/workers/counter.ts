import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { asSystem } from "@licet/platform/database/database";
import { StalePositionError, type Subscription } from "@licet/platform/events/bus";
import { type Consumed, createConsumer, PoisonError } from "@licet/platform/events/consumer";
import type { Logger } from "@licet/platform/logging";
import type { Context } from "../context.ts";
import { fromTracked } from "../events.ts";
import { CONSUMER, requireLog } from "../log.ts";
import { loadOffset, moveOffset } from "../store/offsets.ts";
import { countEvents } from "../store/usage.ts";

/**
 * Counts accepted events. One transaction moves the consumer's offset, drops what was counted before and adds the rest
 * to the sums: a crash at any point leaves all of it or nothing, and the log is read again from the stored offset.
 *
 * @param onCounted hears that something new was counted.
 * @throws Error when the offsets belong to another log; should the log be exchanged later, counting stops and is tried again.
 */
export async function startCounter(ctx: Context, logger: Logger, onCounted: () => void): Promise<Subscription> {
  await requireLog(ctx);
  return createConsumer({
    bus: ctx.bus,
    desc: UsageTrackedSchema,
    reader: {
      kind: "group",
      group: CONSUMER,
      async loadOffset(topic, partition) {
        await requireLog(ctx);
        return asSystem(ctx.db, (tx) => loadOffset(tx, { consumer: CONSUMER, topic, partition }));
      },
    },
    async apply(messages, batch) {
      const events = messages.map(toEvent);
      const place = { consumer: CONSUMER, topic: batch.topic, partition: batch.partition };
      const counted = await asSystem(ctx.db, async (tx) => {
        if (!(await moveOffset(tx, place, batch.firstOffset, batch.nextOffset))) throw new StalePositionError(batch);
        return countEvents(tx, events);
      });
      ctx.metrics.counted.add(counted.fresh);
      ctx.metrics.duplicates.add(counted.duplicates);
      ctx.metrics.conflicts.add(counted.conflicts);
      if (counted.fresh > 0) onCounted();
    },
    logger,
  });
}

function toEvent({ record, message }: Consumed<typeof UsageTrackedSchema>) {
  const event = fromTracked(message);
  if (!event) throw new PoisonError(record, "the event lacks its tenant, its time or the event itself");
  return event;
}
