import { eventLogUrl } from "@licet/mesh/bus";
import { kafkaConnection } from "@licet/mesh/kafka-settings";
import type { BusSettings } from "@licet/mesh/settings";
import { topics } from "@licet/mesh/topics";
import type { FoundTopic } from "@licet/platform/events/bus";
import { createKafkaAdmin, createKafkaClient, firstContact } from "@licet/platform/events/kafka-client";
import * as kafka from "@licet/platform/events/kafka-topics";
import * as postgres from "@licet/platform/events/postgres-topics";
import { createLogger } from "@licet/platform/logging";
import { busSettingsOf, type Environment } from "../settings.ts";

const DAY_MS = 86_400_000;

/** The topics of the contracts beside what the log has, as a table, and how many are not as they should be. */
export async function listTopics(env: Environment): Promise<{ rows: string[][]; wrong: number }> {
  const found = await inLog(busSettingsOf(env), (log) => log.find());
  const rows = found.map(({ spec, partitions }) => [
    spec.name,
    String(spec.partitions),
    spec.compacted ? "compacted" : `${spec.retentionMs / DAY_MS} days`,
    partitions === 0 ? "missing" : partitions === spec.partitions ? "ok" : `has ${partitions} partitions`,
  ]);
  return {
    rows: [["TOPIC", "PARTITIONS", "KEEPS", "LOG"], ...rows],
    wrong: found.filter(({ spec, partitions }) => partitions !== spec.partitions).length,
  };
}

/** As {@link listTopics}. @throws Error when a topic is missing or has another number of partitions. */
export async function checkTopics(env: Environment): Promise<string[][]> {
  const { rows, wrong } = await listTopics(env);
  if (wrong > 0) {
    throw new Error(`${wrong} topics are missing or differ; \`licet topics list\` shows them, \`apply\` creates them`);
  }
  return rows;
}

/** Creates the topics that the log lacks, and in Kafka sets the settings of those that differ. @throws Error when one has another number of partitions. */
export async function createTopics(settings: BusSettings): Promise<string> {
  const changes = await inLog(settings, (log) => log.apply());
  return changes.length === 0 ? "All topics are there.\n" : `${changes.join("\n")}\n`;
}

/** The topics of the contracts in the log that the environment names. */
interface Log {
  find(): Promise<FoundTopic[]>;
  /** Makes them what the contracts declare; returns what was done, one sentence each. */
  apply(): Promise<string[]>;
}

async function inLog<T>(settings: BusSettings, work: (log: Log) => Promise<T>): Promise<T> {
  if (settings.KAFKA_BROKERS === undefined) {
    const url = eventLogUrl(settings);
    return work({
      find: () => postgres.findTopics(url, topics),
      apply: async () => (await postgres.applyTopics(url, topics)).map((name) => `created ${name}`),
    });
  }
  const logger = createLogger({ level: "warn", name: "licet-topics" });
  const connection = await kafkaConnection(settings, settings.KAFKA_BROKERS);
  const admin = createKafkaAdmin(createKafkaClient(connection, "licet-topics", logger));
  const ask: typeof admin.ask = (question) => firstContact(connection, () => admin.ask(question));
  try {
    return await work({
      find: () => ask((client) => kafka.findTopics(client, topics)),
      async apply() {
        const applied = await ask((client) => kafka.applyTopics(client, topics));
        return applied.flatMap(({ name, change }) => (change === "none" ? [] : [`${change} ${name}`]));
      },
    });
  } finally {
    await admin.stop();
  }
}
