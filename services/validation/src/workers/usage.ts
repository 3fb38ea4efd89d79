import { UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { EventBus, Subscription } from "@licet/platform/events/bus";
import { createConsumer, PoisonError } from "@licet/platform/events/consumer";
import type { Logger } from "@licet/platform/logging";
import type { UsageCache } from "../cache/usage.ts";

/**
 * Follows what customers have used, from the beginning of its topic, which keeps the last of each customer. Usage metering
 * itself is never asked: while it is away decisions go on, by what is known and how old that is.
 */
export function followUsage(usage: UsageCache, bus: EventBus, logger: Logger): Promise<Subscription> {
  return createConsumer({
    bus,
    desc: UsageLevelsSchema,
    reader: { kind: "all", from: "beginning" },
    apply: async (messages) => {
      for (const { record, message } of messages) {
        try {
          usage.apply(message);
        } catch (error) {
          throw new PoisonError(record, "the levels of usage can't be read", { cause: error });
        }
      }
    },
    onHeartbeat: ({ partition, issuedAt }) => usage.heard(partition, issuedAt.getTime()),
    logger,
  });
}
