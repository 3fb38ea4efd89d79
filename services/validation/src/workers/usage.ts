import { UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { EventBus, Subscription } from "@licet/platform/events/bus";
import { createConsumer, PoisonError } from "@licet/platform/events/consumer";
import type { Logger } from "@licet/platform/logging";
import type { UsageCache } from "../cache/usage.ts";
import type { Watches } from "../watch/watches.ts";

/**
 * Follows what customers have used, from the beginning of its topic, which keeps the last of each customer. Usage metering
 * itself is never asked: while it is away decisions go on, by what is known and how old that is.
 */
export function followUsage(
  { usage, watches }: { readonly usage: UsageCache; readonly watches: Watches },
  bus: EventBus,
  logger: Logger,
): Promise<Subscription> {
  // Of what lies before the beginning nobody was told.
  watches.usageChanges.begin(0);
  return createConsumer({
    bus,
    desc: UsageLevelsSchema,
    reader: { kind: "all", from: "beginning" },
    apply: async (messages) => {
      for (const { record, message } of messages) {
        try {
          if (usage.apply(message)) watches.usageChanged({ tenant: message.tenantId, customerId: message.customerId });
        } catch (error) {
          throw new PoisonError(record, "the levels of usage can't be read", { cause: error });
        }
      }
    },
    onHeartbeat({ partition, issuedAt }) {
      usage.heard(partition, issuedAt.getTime());
      watches.usageChanges.heard(partition, issuedAt.getTime());
    },
    logger,
  });
}
