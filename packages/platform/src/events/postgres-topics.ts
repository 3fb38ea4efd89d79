import { openDatabase } from "../database/database.ts";
import { type FoundTopic, type TopicSpec, withDeadLetters } from "./bus.ts";
import { ensureTopic, readTails } from "./postgres-log.ts";

/**
 * Looks for topics and their dead-letter topics in the Postgres log.
 *
 * @param url the system role's URL of the log's database.
 * @throws Error when the database can't be reached.
 */
export async function findTopics(url: string, topics: readonly TopicSpec[]): Promise<FoundTopic[]> {
  const db = openDatabase<unknown>({ url, applicationName: "licet-topics", maxConnections: 1 });
  try {
    const specs = withDeadLetters(topics);
    const tails = await readTails(
      db,
      specs.map(({ name }) => name),
    );
    return specs.map((spec) => ({ spec, partitions: tails.filter(({ topic }) => topic === spec.name).length }));
  } finally {
    await db.destroy();
  }
}

/**
 * Creates the topics that the Postgres log lacks, with their dead-letter topics.
 *
 * @returns their names.
 * @throws Error naming a topic that has another number of partitions.
 */
export async function applyTopics(url: string, topics: readonly TopicSpec[]): Promise<string[]> {
  const missing = (await findTopics(url, topics)).filter(({ partitions }) => partitions === 0);
  const db = openDatabase<unknown>({ url, applicationName: "licet-topics", maxConnections: 1 });
  try {
    for (const topic of withDeadLetters(topics)) await ensureTopic(db, topic);
  } finally {
    await db.destroy();
  }
  return missing.map(({ spec }) => spec.name);
}
