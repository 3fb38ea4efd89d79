import { openBus } from "@licet/mesh/bus";
import { topics } from "@licet/mesh/topics";
import { type BusRecord, deadLetterTopic, type OutgoingRecord } from "@licet/platform/events/bus";
import { createLogger } from "@licet/platform/logging";
import { busSettingsOf, type Environment } from "../settings.ts";

/** The group whose position tells which dead letters were published again already. */
const GROUP = "licet-redrive";

/**
 * Publishes the dead letters of a topic to it again, each once over all runs: those that fail again come back as new
 * ones. A run that is cut off may repeat some.
 */
export async function redrive(name: string, env: Environment): Promise<string> {
  const topic = topics.find((spec) => spec.name === name);
  if (topic === undefined) {
    const known = topics.map((spec) => spec.name).join(", ");
    throw new Error(`--topic: there is no topic ${JSON.stringify(name)}; there are ${known}`);
  }
  const logger = createLogger({ level: "warn", name: GROUP });
  const bus = await openBus(busSettingsOf(env), GROUP, logger);
  try {
    let count = 0;
    const subscription = await bus.subscribe({
      topics: [deadLetterTopic(topic).name],
      reader: { kind: "group", group: GROUP },
      async handle({ records }) {
        await bus.publish(records.map((record) => revived(record, name)));
        count += records.length;
      },
    });
    await subscription.caughtUp();
    await subscription.stop();
    return count === 0
      ? `${name} has no new dead letters.\n`
      : `${count} dead letters were published to ${name} again.\n`;
  } finally {
    await bus.stop();
  }
}

/** The record as it was before it was buried. */
function revived({ key, value, headers }: BusRecord, topic: string): OutgoingRecord {
  const own = Object.entries(headers).filter(([header]) => !header.startsWith("dead-"));
  return { topic, key, value, headers: Object.fromEntries(own) };
}
