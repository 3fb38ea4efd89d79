import { roles, roleUrl } from "@licet/platform/database/roles";
import type { EventBus } from "@licet/platform/events/bus";
import { createKafkaBus } from "@licet/platform/events/kafka";
import { createPostgresBus } from "@licet/platform/events/postgres";
import type { Logger } from "@licet/platform/logging";
import { kafkaConnection } from "./kafka-settings.ts";
import type { BusSettings } from "./settings.ts";
import { topics } from "./topics.ts";

/** The name of the event log's database behind the prefix. */
export const BUS_DATABASE = "bus";

/**
 * Opens the event bus that the settings name: the only place that decides between buses.
 *
 * @param clientId what this process is called in the brokers' logs, such as `licet-validation`.
 * @throws Error when it can't be reached, refuses the log-in or has topics of another shape than the contracts.
 */
export async function openBus(settings: BusSettings, clientId: string, logger: Logger): Promise<EventBus> {
  const { KAFKA_BROKERS: brokers } = settings;
  if (brokers !== undefined) {
    return createKafkaBus({ connection: await kafkaConnection(settings, brokers), clientId, topics, logger });
  }
  return createPostgresBus({ url: eventLogUrl(settings), topics, logger });
}

/** The event log's database as the system role. */
export function eventLogUrl({ EVENT_LOG_URL, DATABASE_URL = "", LICET_DATABASE_PREFIX }: BusSettings): string {
  return EVENT_LOG_URL ?? roleUrl(DATABASE_URL, roles.system, `${LICET_DATABASE_PREFIX}_${BUS_DATABASE}`);
}
