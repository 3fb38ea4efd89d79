import kafkajs, { type Admin, type IResourceConfigEntry } from "kafkajs";
import { type FoundTopic, type TopicSpec, withDeadLetters } from "./bus.ts";

// Node finds no export of this name in the CommonJS module.
const { ConfigResourceTypes } = kafkajs;

/** What {@link applyTopics} did to a topic. */
export interface AppliedTopic {
  readonly name: string;
  readonly change: "created" | "configured" | "none";
}

/** How {@link applyTopics} makes what is missing. */
export interface ApplyTopicsOptions {
  /** Copies of each partition; absent: 3, or as many as there are brokers. Existing topics keep theirs. */
  readonly replicationFactor?: number;
}

/** Most bytes of one batch: a value of the largest size with room for its headers. */
const maxMessageBytes = 4 * 1024 * 1024;

/**
 * Makes Kafka's topics what the code declares, with their dead-letter topics: creates those that are missing and sets
 * the settings of those that differ. Settings of these topics that were made by hand return to the cluster's defaults.
 *
 * @throws {Error} naming each topic that exists with another number of partitions; then nothing is changed.
 */
export async function applyTopics(
  admin: Admin,
  topics: readonly TopicSpec[],
  options: ApplyTopicsOptions = {},
): Promise<AppliedTopic[]> {
  const specs = withDeadLetters(topics);
  const existing = await partitionCounts(admin, specs);
  refuse(partitionProblems(specs, existing));
  const brokers = (await admin.describeCluster()).brokers.length;
  const replicationFactor = options.replicationFactor ?? Math.min(3, brokers);
  const missing = specs.filter(({ name }) => !existing.has(name));
  if (missing.length > 0) {
    await admin.createTopics({
      waitForLeaders: true,
      topics: missing.map((spec) => ({
        topic: spec.name,
        numPartitions: spec.partitions,
        replicationFactor,
        configEntries: settingsOf(spec, replicationFactor),
      })),
    });
  }
  const present = specs.filter(({ name }) => existing.has(name));
  const configured = new Set(await configure(admin, present));
  return specs.map(({ name }) => {
    if (!existing.has(name)) return { name, change: "created" };
    return { name, change: configured.has(name) ? "configured" : "none" };
  });
}

/**
 * Checks that the topics and their dead-letter topics exist with the declared number of partitions.
 *
 * @throws {Error} naming each topic that is missing or has another number.
 */
export async function checkTopics(admin: Admin, topics: readonly TopicSpec[]): Promise<void> {
  const specs = withDeadLetters(topics);
  const existing = await partitionCounts(admin, specs);
  const missing = specs
    .filter(({ name }) => !existing.has(name))
    .map(({ name }) => `Kafka has no topic "${name}": create it with \`licet topics apply\``);
  refuse([...missing, ...partitionProblems(specs, existing)]);
}

/** Looks for topics and their dead-letter topics in Kafka. */
export async function findTopics(admin: Admin, topics: readonly TopicSpec[]): Promise<FoundTopic[]> {
  const specs = withDeadLetters(topics);
  const existing = await partitionCounts(admin, specs);
  return specs.map((spec) => ({ spec, partitions: existing.get(spec.name) ?? 0 }));
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new Error(problems.join("\n"));
}

function partitionProblems(specs: readonly TopicSpec[], existing: ReadonlyMap<string, number>): string[] {
  return specs.flatMap(({ name, partitions }) => {
    const found = existing.get(name);
    if (found === undefined || found === partitions) return [];
    return [
      `the topic "${name}" has ${found} partitions in Kafka and ${partitions} in the code; ` +
        "the number can't change, because keys would move and lose their order",
    ];
  });
}

async function partitionCounts(admin: Admin, specs: readonly TopicSpec[]): Promise<Map<string, number>> {
  const names = new Set(await admin.listTopics());
  const topics = specs.map(({ name }) => name).filter((name) => names.has(name));
  if (topics.length === 0) return new Map();
  const metadata = await admin.fetchTopicMetadata({ topics });
  return new Map(metadata.topics.map(({ name, partitions }) => [name, partitions.length]));
}

/** The settings of a topic; `replicationFactor` copies tolerate the loss of one. */
function settingsOf(spec: TopicSpec, replicationFactor: number): { name: string; value: string }[] {
  const settings = {
    "max.message.bytes": maxMessageBytes,
    // Ages are judged by the broker's clock alone.
    "message.timestamp.type": "LogAppendTime",
    "min.insync.replicas": Math.max(1, replicationFactor - 1),
    ...(spec.compacted
      ? { "cleanup.policy": "compact", "max.compaction.lag.ms": spec.retentionMs }
      : { "cleanup.policy": "delete", "retention.ms": spec.retentionMs }),
  };
  return Object.entries(settings).map(([name, value]) => ({ name, value: String(value) }));
}

/** Sets the settings that differ from the declared ones, and returns the names of the topics that it changed. */
async function configure(admin: Admin, specs: readonly TopicSpec[]): Promise<string[]> {
  if (specs.length === 0) return [];
  const topics = specs.map(({ name }) => name);
  const [{ resources }, metadata] = await Promise.all([
    admin.describeConfigs({
      includeSynonyms: false,
      resources: topics.map((name) => ({ type: ConfigResourceTypes.TOPIC, name })),
    }),
    admin.fetchTopicMetadata({ topics }),
  ]);
  const changes = specs.flatMap((spec) => {
    const replicas = metadata.topics.find(({ name }) => name === spec.name)?.partitions[0]?.replicas.length ?? 1;
    const wanted: IResourceConfigEntry[] = settingsOf(spec, replicas);
    const found = resources.find(({ resourceName }) => resourceName === spec.name)?.configEntries ?? [];
    const values = new Map(found.map(({ configName, configValue }) => [configName, configValue]));
    if (wanted.every(({ name, value }) => values.get(name) === value)) return [];
    return [{ type: ConfigResourceTypes.TOPIC, name: spec.name, configEntries: wanted }];
  });
  if (changes.length > 0) await admin.alterConfigs({ validateOnly: false, resources: changes });
  return changes.map(({ name }) => name);
}
