import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import { metrics } from "@opentelemetry/api";
import { MeterProvider, MetricReader } from "@opentelemetry/sdk-metrics";
import kafkajs, { type ISocketFactory } from "kafkajs";
import { type KafkaServer, startKafka } from "../local/kafka.ts";
import { createLogger } from "../logging.ts";
import {
  type BusHarness,
  busCases,
  busConformance,
  type OffsetStore,
  TransactionalStore,
} from "../testing/bus-conformance.ts";
import { describeKafka, startTestKafka } from "../testing/kafka.ts";
import { type FaultProxy, startFaultProxy } from "../testing/proxy.ts";
import { until } from "../testing/until.ts";
import {
  type Batch,
  busLimits,
  type EventBus,
  type OutgoingRecord,
  type Reader,
  StalePositionError,
  type TopicSpec,
} from "./bus.ts";
import { createKafkaBus } from "./kafka.ts";
import { createKafkaAdmin, createKafkaClient, type KafkaAdmin } from "./kafka-client.ts";
import { applyTopics } from "./kafka-topics.ts";

const logger = createLogger({ level: "silent", name: "kafka-bus-test" });

/** Fetching Kafka for the first time and starting it. */
const startMs = 300_000;
let server: Pick<KafkaServer, "brokers" | "stop">;
let admin: KafkaAdmin;

function brokerAddress(): { host: string; port: number } {
  const [host = "", port] = (server.brokers[0] ?? "").split(":");
  return { host, port: Number(port) };
}

interface KafkaHarness extends BusHarness {
  /** What stands between a bus and Kafka. */
  proxyOf(bus: EventBus): FaultProxy;
}

/** @param plant puts a bug into every bus. */
function makeHarness(plant = (bus: EventBus): EventBus => bus): KafkaHarness {
  const opened = new Map<EventBus, FaultProxy>();
  const ending = new AbortController();
  const disturbances: Promise<void>[] = [];
  return {
    async open(topics) {
      await admin.ask((client) => applyTopics(client, topics));
      const proxy = await startFaultProxy(brokerAddress());
      // Whatever address the broker tells its clients: all their connections go through the proxy.
      const socketFactory: ISocketFactory = ({ onConnect }) =>
        connect({ host: "127.0.0.1", port: proxy.port }, onConnect);
      const connection = { brokers: server.brokers, socketFactory };
      const bus = plant(await createKafkaBus({ connection, clientId: "conformance", topics, logger }));
      opened.set(bus, proxy);
      return bus;
    },
    crash: (bus) => opened.get(bus)?.cut(),
    setReachable: (bus, reachable) => (reachable ? opened.get(bus)?.restore() : opened.get(bus)?.cut()),
    async disturbCommits() {
      // A commit can't be made to fail for certain. Its request or its answer can be lost, which the publisher's retries
      // must turn into exactly one record.
      disturbances.push(...[...opened.values()].map((proxy) => disturb(proxy, ending.signal)));
    },
    proxyOf(bus) {
      const proxy = opened.get(bus);
      if (proxy === undefined) throw new Error("the bus was not opened by this harness");
      return proxy;
    },
    async close() {
      ending.abort();
      await Promise.all(disturbances);
      await Promise.all([...opened.keys()].map((bus) => bus.stop()));
      await Promise.all([...opened.values()].map((proxy) => proxy.stop()));
    },
  };
}

/**
 * Holds connections up and breaks them at random moments, until `signal` aborts: less and less often, so that a machine which
 * takes seconds for a new connection gets on in the end.
 */
async function disturb(proxy: FaultProxy, signal: AbortSignal): Promise<void> {
  const wait = (ms: number) => delay(Math.random() * ms, undefined, { signal }).catch(() => undefined);
  for (let round = 1; !signal.aborted; round++) {
    await wait(100 + 5 * round);
    if (round % 5 === 0) proxy.cut();
    else proxy.freeze();
    await wait(20);
    proxy.restore();
  }
}

const record = (topic: TopicSpec, text: string): OutgoingRecord => ({
  topic: topic.name,
  key: "key",
  headers: {},
  value: Buffer.from(text),
});

/** Reads everything there is, from the beginning. */
async function readAll(bus: EventBus, topic: TopicSpec, reader: Reader = { kind: "all", from: "beginning" }) {
  const texts: string[] = [];
  const handle = async (batch: Batch): Promise<void> => void texts.push(...textsOf(batch));
  const subscription = await bus.subscribe({ topics: [topic.name], reader, handle });
  await subscription.caughtUp();
  await subscription.stop();
  return texts;
}

describeKafka("Kafka", () => {
  beforeAll(async () => {
    server = await startTestKafka();
    admin = createKafkaAdmin(createKafkaClient({ brokers: server.brokers }, "kafka-test", logger));
  }, startMs);
  afterAll(async () => {
    await admin?.stop();
    await server?.stop();
  });

  busConformance("Kafka", async () => makeHarness());

  const harnesses: KafkaHarness[] = [];
  afterEach(async () => {
    for (const harness of harnesses.splice(0)) await harness.close();
  });

  function openHarness(plant?: (bus: EventBus) => EventBus): KafkaHarness {
    const harness = makeHarness(plant);
    harnesses.push(harness);
    return harness;
  }

  test("stores what follows a publication whose answer was lost", async () => {
    const topic = newTopic("answers");
    const harness = openHarness();
    const bus = await harness.open([topic]);
    await bus.publish([record(topic, "before")]);
    const proxy = harness.proxyOf(bus);
    proxy.loseAnswers();
    const lost = expect(bus.publish([record(topic, "unanswered")])).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await until("Kafka has stored the record", async () => {
      return (await admin.bounds([topic.name])).some(({ offset }) => offset === 2n);
    });
    proxy.cut();
    await lost;
    proxy.restore();
    await bus.publish([record(topic, "after")]);
    expect(await readAll(bus, topic)).toEqual(["before", "unanswered", "after"]);
  });

  test("publishes calls that are larger than one batch of Kafka's", async () => {
    const topic = newTopic("large");
    const bus = await openHarness().open([topic]);
    const value = Buffer.alloc(busLimits.valueBytes, "x");
    const records = Array.from({ length: 16 }, () => ({ ...record(topic, ""), value }));
    await bus.publish(records);
    const sizes = (await readAll(bus, topic)).map(({ length }) => length);
    expect(sizes).toEqual(records.map(() => busLimits.valueBytes));
  });

  test("goes on behind what retention removed", async () => {
    const topic = newTopic("expired");
    const bus = await openHarness().open([topic]);
    const group: Reader = { kind: "group", group: topic.name };
    await bus.publish([record(topic, "1")]);
    expect(await readAll(bus, topic, group)).toEqual(["1"]);
    const remove = (offset: string) =>
      admin.ask(async (client) => {
        // kafkajs finds the partition's leader only for a topic that it has been asked about.
        await client.fetchTopicOffsets(topic.name);
        await client.deleteTopicRecords({ topic: topic.name, partitions: [{ partition: 0, offset }] });
      });
    await bus.publish(["2", "3", "4"].map((text) => record(topic, text)));
    await remove("3");
    expect(await readAll(bus, topic, group)).toEqual(["4"]);
    expect(await readAll(bus, topic)).toEqual(["4"]);
    await bus.publish([record(topic, "5")]);
    await remove("5");
    expect(await readAll(bus, topic, group)).toEqual([]);
  });

  test("refuses a stored position behind the end, as it belongs to another log", async () => {
    const topic = newTopic("ahead");
    const bus = await openHarness().open([topic]);
    await bus.publish([record(topic, "1")]);
    let asked = 0;
    let stored = 7n;
    const loadOffset = async (): Promise<bigint> => {
      asked++;
      return stored;
    };
    const texts: string[] = [];
    const subscription = await bus.subscribe({
      topics: [topic.name],
      reader: { kind: "group", group: topic.name, loadOffset },
      handle: async (batch) => void texts.push(...textsOf(batch)),
    });
    await until("the position was refused and asked for again", () => asked > 1);
    expect(texts).toEqual([]);
    stored = 0n;
    await subscription.caughtUp();
    expect(texts).toEqual(["1"]);
  });

  test("is caught up when the last handler has stored its offset and failed then", async () => {
    const topic = newTopic("answer");
    const bus = await openHarness().open([topic]);
    await bus.publish([record(topic, "1")]);
    let stored = 0n;
    const subscription = await bus.subscribe({
      topics: [topic.name],
      reader: { kind: "group", group: topic.name, loadOffset: async () => stored },
      async handle({ nextOffset }) {
        stored = nextOffset;
        throw new Error("the answer to the commit was lost");
      },
    });
    await subscription.caughtUp();
    expect(stored).toBe(1n);
  });

  test("begins anew where the handler's own offset was set back to", async () => {
    const topic = newTopic("back");
    const bus = await openHarness().open([topic]);
    let stored = 0n;
    let setBack = false;
    const texts: string[] = [];
    const subscription = await bus.subscribe({
      topics: [topic.name],
      maxBatchRecords: 1,
      reader: { kind: "group", group: topic.name, loadOffset: async () => stored },
      async handle(batch) {
        if (batch.firstOffset === 2n && !setBack) {
          setBack = true;
          stored = 0n;
        }
        if (batch.firstOffset !== stored) throw new StalePositionError(batch);
        texts.push(...textsOf(batch));
        stored = batch.nextOffset;
      },
    });
    await bus.publish(["1", "2", "3"].map((text) => record(topic, text)));
    await subscription.caughtUp();
    expect(texts).toEqual(["1", "2", "1", "2", "3"]);
  });

  test("loses and doubles nothing while members come and go", async () => {
    const topic = { ...newTopic("rebalance"), partitions: 6 };
    const harness = openHarness();
    const [steady, changing] = [await harness.open([topic]), await harness.open([topic])];
    const store = new TransactionalStore();
    const joinGroup = (bus: EventBus) =>
      bus.subscribe({
        topics: [topic.name],
        maxBatchRecords: 7,
        reader: { kind: "group", group: topic.name, loadOffset: store.loadOffset },
        handle: async (batch) => store.commit(batch, textsOf(batch)),
      });
    const staying = await joinGroup(steady);
    const published: string[] = [];
    let publishing = true;
    const publisher = (async () => {
      while (publishing) {
        const text = String(published.length);
        await steady.publish([{ ...record(topic, text), key: text }]);
        published.push(text);
      }
    })();
    for (let round = 0; round < 4; round++) {
      const handledBefore = store.texts.length;
      const members = await Promise.all([joinGroup(changing), joinGroup(changing)]);
      await until("somebody has read on", () => store.texts.length > handledBefore);
      await Promise.all(members.map((member) => member.stop()));
    }
    publishing = false;
    await publisher;
    await staying.caughtUp();
    expect(store.texts.toSorted()).toEqual(published.toSorted());
  });

  if (process.env.KAFKA_BROKERS !== undefined) {
    process.stdout.write("skipped: killing the broker (KAFKA_BROKERS names one that is not ours to kill)\n");
  }
  const ownBroker = process.env.KAFKA_BROKERS === undefined ? test : test.skip;
  ownBroker("keeps what was acknowledged when the broker is killed", async () => {
    const topic = { ...newTopic("killed"), partitions: 3 };
    const dataDir = await mkdtemp(join(tmpdir(), "licet-kafka-killed-"));
    const first = await startKafka({ dataDir });
    const connection = { brokers: first.brokers };
    const client = createKafkaAdmin(createKafkaClient(connection, "killed", logger));
    await client.ask((asked) => applyTopics(asked, [topic]));
    const bus = await createKafkaBus({ connection, clientId: "killed", topics: [topic], logger });
    const read = new Set<string>();
    const reader: Reader = { kind: "group", group: topic.name };
    const handle = async (batch: Batch): Promise<void> => {
      for (const text of textsOf(batch)) read.add(text);
    };
    const subscription = await bus.subscribe({ topics: [topic.name], reader, handle });
    const acknowledged: string[] = [];
    let publishing = true;
    const publisher = (async () => {
      for (let number = 0; publishing; number++) {
        const text = String(number);
        const sent = bus.publish([{ ...record(topic, text), key: text }]);
        await sent.then(() => acknowledged.push(text)).catch(() => undefined);
      }
    })();
    await until("some are published", () => acknowledged.length > 200);
    process.kill(first.pid, "SIGKILL");
    const second = await startKafka({ dataDir, port: Number(first.brokers[0]?.split(":")[1]) });
    const before = acknowledged.length;
    await until("more are published", () => acknowledged.length > before + 200);
    publishing = false;
    await publisher;
    await subscription.caughtUp();
    expect(acknowledged.filter((text) => !read.has(text))).toEqual([]);
    await bus.stop();
    await client.stop();
    await first.stop();
    await second.stop();
    await rm(dataDir, { recursive: true });
  });

  test("leaves no group behind that read everything", async () => {
    const topic = newTopic("groups");
    const bus = await openHarness().open([topic]);
    const before = await allGroups();
    const handle = async (): Promise<void> => undefined;
    const reading = await bus.subscribe({ topics: [topic.name], reader: { kind: "all", from: "beginning" }, handle });
    expect((await allGroups()).length).toBe(before.length + 1);
    await reading.stop();
    // In whatever order Kafka tells them.
    expect(new Set(await allGroups())).toEqual(new Set(before));
  });

  test("tells how far each reader is behind", async () => {
    const topic = newTopic("lag");
    const bus = await openHarness().open([topic]);
    const gate = Promise.withResolvers<void>();
    await bus.publish([record(topic, "1"), record(topic, "2")]);
    const metricReader = new TestMetricReader();
    const provider = new MeterProvider({ readers: [metricReader] });
    metrics.setGlobalMeterProvider(provider);
    const reader: Reader = { kind: "group", group: topic.name };
    const subscription = await bus.subscribe({ topics: [topic.name], reader, handle: () => gate.promise });
    const seen = async (): Promise<unknown> => {
      const { resourceMetrics } = await metricReader.collect();
      return resourceMetrics.scopeMetrics.flatMap((scope) =>
        scope.metrics.flatMap(({ descriptor, dataPoints }) =>
          dataPoints.map(({ value, attributes }) => [descriptor.name, value, attributes]),
        ),
      );
    };
    const lag = (value: number): unknown => [
      [
        "licet.events.lag",
        value,
        {
          "messaging.destination.name": topic.name,
          "messaging.destination.partition.id": "0",
          "messaging.consumer.group.name": topic.name,
        },
      ],
    ];
    await until("the reader knows where it is", async () => JSON.stringify(await seen()) === JSON.stringify(lag(2)));
    gate.resolve();
    await subscription.caughtUp();
    expect(await seen()).toEqual(lag(0));
    await provider.shutdown();
    metrics.disable();
  });

  describe("topics", () => {
    const apply = (topic: TopicSpec) => admin.ask((client) => applyTopics(client, [topic]));
    const setting = async (topic: TopicSpec, name: string) => {
      const { resources } = await admin.ask((client) =>
        client.describeConfigs({
          includeSynonyms: false,
          resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic.name }],
        }),
      );
      return resources[0]?.configEntries.find(({ configName }) => configName === name)?.configValue;
    };

    test("are created, and changed when the code says otherwise", async () => {
      const topic = newTopic("applied");
      const dead = `${topic.name}.dead`;
      expect(await apply(topic)).toEqual([
        { name: topic.name, change: "created" },
        { name: dead, change: "created" },
      ]);
      expect(await apply(topic)).toEqual([
        { name: topic.name, change: "none" },
        { name: dead, change: "none" },
      ]);
      const longer = { ...topic, retentionMs: 2 * topic.retentionMs };
      expect(await apply(longer)).toEqual([
        { name: topic.name, change: "configured" },
        { name: dead, change: "none" },
      ]);
      const retention = async () => (await setting(topic, "retention.ms")) === String(longer.retentionMs);
      await until("the broker has taken the retention over", retention);
      const compacted = { ...topic, compacted: true };
      await apply(compacted);
      await until("the topic is compacted", async () => (await setting(topic, "cleanup.policy")) === "compact");
      expect(await setting(topic, "max.compaction.lag.ms")).toBe(String(topic.retentionMs));
    });

    test("keep their number of partitions", async () => {
      const topic = newTopic("fixed");
      await apply(topic);
      const other = { ...topic, partitions: 2 };
      const refused = `the topic "${topic.name}" has 1 partitions in Kafka and 2 in the code`;
      await expect(apply(other)).rejects.toThrow(refused);
      await expect(openBus(other)).rejects.toThrow(refused);
    });

    test("must exist before a bus is opened", async () => {
      const topic = newTopic("missing");
      await expect(openBus(topic)).rejects.toThrow(`Kafka has no topic "${topic.name}": create it with`);
    });

    function openBus(topic: TopicSpec): Promise<EventBus> {
      return createKafkaBus({ connection: { brokers: server.brokers }, clientId: "test", topics: [topic], logger });
    }
  });

  test("says that Kafka can't be reached", async () => {
    const proxy = await startFaultProxy(brokerAddress());
    await proxy.stop();
    const connection = { brokers: [`127.0.0.1:${proxy.port}`] };
    await expect(createKafkaBus({ connection, clientId: "test", topics: [], logger })).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "DEPENDENCY_UNAVAILABLE",
    });
  });

  describe("planted bugs", () => {
    test("a position that is stored before its records are handled is caught", async () => {
      const autoCommit = (bus: EventBus): EventBus => ({
        ...bus,
        subscribe: (options) =>
          bus.subscribe({
            ...options,
            async handle(batch) {
              options.handle(batch).catch(() => undefined);
            },
          }),
      });
      const run = busCases["delivers again what a crashed member left unfinished"](openHarness(autoCommit));
      await expect(run).rejects.toMatchObject({ matcherResult: { pass: false } });
    });

    test("an offset that is stored apart from its effect is caught", async () => {
      const run = busCases["has effects exactly once when the handler keeps its offset"](
        openHarness(),
        new SplitStore(),
      );
      await expect(run).rejects.toMatchObject({ matcherResult: { pass: false } });
    });
  });
});

function textsOf({ records }: Batch): string[] {
  return records.map(({ value }) => Buffer.from(value).toString());
}

async function allGroups(): Promise<string[]> {
  const { groups } = await admin.ask((client) => client.listGroups());
  return groups.map(({ groupId }) => groupId).filter((id) => id.startsWith("licet-all-"));
}

function newTopic(name: string): TopicSpec {
  return { name: `${name}.${randomUUID()}`, partitions: 1, compacted: false, retentionMs: 60_000 };
}

/** The planted bug: what is done already is looked up outside of the effect's transaction, so a death between both repeats it. */
class SplitStore implements OffsetStore {
  readonly texts: string[] = [];
  readonly #offsets = new Map<number, bigint>();
  #commits = 0;

  async loadOffset(_topic: string, partition: number): Promise<bigint> {
    return this.#offsets.get(partition) ?? 0n;
  }

  commit(batch: Batch, texts: readonly string[]): void {
    if ((this.#offsets.get(batch.partition) ?? 0n) !== batch.firstOffset) throw new StalePositionError(batch);
    this.texts.push(...texts);
    if (++this.#commits % 4 === 0) throw new Error("died between the effect and the offset");
    this.#offsets.set(batch.partition, batch.nextOffset);
  }
}

class TestMetricReader extends MetricReader {
  protected override async onShutdown(): Promise<void> {}
  protected override async onForceFlush(): Promise<void> {}
}
