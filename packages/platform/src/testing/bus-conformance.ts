import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import {
  type Batch,
  type BusRecord,
  deadLetterTopic,
  type EventBus,
  type OutgoingRecord,
  partitionOf,
  type Reader,
  StalePositionError,
  type Subscription,
  type TopicSpec,
} from "../events/bus.ts";
import { topicOf, toRecord } from "../events/cloudevent.ts";
import { createConsumer, PoisonError } from "../events/consumer.ts";
import { createLogger } from "../logging.ts";
import { exampleEvent } from "./example-event.ts";
import { until } from "./until.ts";

/** How the suite reaches an implementation of the bus. */
export interface BusHarness {
  /** Opens the log as another process would. Topics that don't exist yet are created. */
  open(topics: readonly TopicSpec[]): Promise<EventBus>;
  /** Cuts a bus off from the log for good, in the midst of whatever it does, as if its process had been killed. */
  crash(bus: EventBus): void;
  /** Cuts a bus off, or lets it reach the log again. */
  setReachable(bus: EventBus, reachable: boolean): void;
  /** Makes commits of records of a topic take a random time and some of them fail, where the log can be made to. */
  disturbCommits(topic: TopicSpec): Promise<void>;
  /** Ends all buses. */
  close(): Promise<void>;
}

/**
 * Runs every case against an implementation. A control (an implementation with a planted bug, which must fail) calls its
 * case from {@link busCases} directly.
 */
export function busConformance(name: string, makeHarness: () => Promise<BusHarness>): void {
  describe(`${name} keeps what the event bus promises`, () => {
    let harness: BusHarness;
    beforeEach(async () => {
      harness = await makeHarness();
    });
    afterEach(() => harness.close());
    for (const [title, run] of Object.entries(busCases)) test(title, () => run(harness));
  });
}

const logger = createLogger({ level: "silent", name: "bus-conformance" });
const fromBeginning: Reader = { kind: "all", from: "beginning" };

function newTopic(partitions = 4): TopicSpec {
  return { name: `conformance.${randomUUID()}`, partitions, compacted: false, retentionMs: 24 * 60 * 60 * 1000 };
}

function newGroup(): Reader & { kind: "group" } {
  return { kind: "group", group: randomUUID() };
}

function record(topic: TopicSpec, key: string, text: string): OutgoingRecord {
  return { topic: topic.name, key, headers: { text }, value: Buffer.from(text) };
}

/** Records over seven keys; the text is `key:number`, and the numbers of each key rise from 0. */
function series(topic: TopicSpec, count: number, name = "key"): OutgoingRecord[] {
  return Array.from({ length: count }, (_, index) => {
    const key = `${name}-${index % 7}`;
    return record(topic, key, `${key}:${Math.floor(index / 7)}`);
  });
}

const textOf = ({ value }: OutgoingRecord): string => Buffer.from(value).toString();
const sorted = (texts: readonly string[]): string[] => texts.toSorted();
const nothing = async (): Promise<void> => undefined;

/** A handler that remembers what it handled, in order. */
class Recorder {
  readonly batches: Batch[] = [];
  readonly #before: (batch: Batch) => Promise<void>;

  constructor(before: (batch: Batch) => Promise<void> = nothing) {
    this.#before = before;
  }

  readonly handle = async (batch: Batch): Promise<void> => {
    await this.#before(batch);
    this.batches.push(batch);
  };

  get records(): BusRecord[] {
    return this.batches.flatMap((batch) => batch.records);
  }

  get texts(): string[] {
    return this.records.map(textOf);
  }
}

function subscribe(
  bus: EventBus,
  topic: TopicSpec,
  reader: Reader,
  to: Recorder,
  maxBatchRecords = 500,
): Promise<Subscription> {
  return bus.subscribe({ topics: [topic.name], reader, handle: to.handle, maxBatchRecords });
}

/** Publishes as a careful client does: again until it is acknowledged. Returns how often. */
async function publishStubbornly(bus: EventBus, records: readonly OutgoingRecord[]): Promise<number> {
  for (let attempts = 1; ; attempts++) {
    try {
      await bus.publish(records);
      return attempts;
    } catch {
      // Disturbed on purpose.
    }
  }
}

/** Each key's texts must be numbered 0, 1, 2 …; one of `again` may come again right where it was first delivered. */
function expectOrdered(records: readonly BusRecord[], again: ReadonlySet<string> = new Set()): void {
  for (const list of Map.groupBy(records, ({ key }) => key).values()) {
    const texts = list.map(textOf);
    const firsts = texts.filter((text, index) => text !== texts[index - 1] || !again.has(text));
    const numbers = firsts.map((text) => Number(text.split(":")[1]));
    expect(numbers).toEqual(numbers.map((_, index) => index));
  }
}

/** Each batch must continue the partition's batch before it, with offsets that rise inside its bounds. */
function expectContinuous(batches: readonly Batch[]): void {
  for (const list of Map.groupBy(batches, ({ partition }) => partition).values()) {
    let position = list[0]?.firstOffset;
    for (const { firstOffset, nextOffset, records } of list) {
      expect(firstOffset).toBe(position);
      const offsets = records.map(({ offset }) => offset);
      expect(offsets).toEqual(offsets.toSorted((a, b) => Number(a - b)));
      expect(new Set(offsets).size).toBe(offsets.length);
      expect(offsets[0]).toBeGreaterThanOrEqual(firstOffset);
      expect(offsets.at(-1)).toBeLessThan(nextOffset);
      position = nextOffset;
    }
  }
}

/** Where a handler keeps its effects, and the offset behind them. */
export interface OffsetStore {
  readonly texts: readonly string[];
  loadOffset(topic: string, partition: number): Promise<bigint>;
  /** @throws {StalePositionError} when the batch doesn't begin at the stored offset. */
  commit(batch: Batch, texts: readonly string[]): void;
}

/** Keeps effects and offset together, as a database transaction would. */
export class TransactionalStore implements OffsetStore {
  readonly texts: string[] = [];
  readonly #offsets = new Map<number, bigint>();

  readonly loadOffset = async (_topic: string, partition: number): Promise<bigint> =>
    this.#offsets.get(partition) ?? 0n;

  commit(batch: Batch, texts: readonly string[]): void {
    if ((this.#offsets.get(batch.partition) ?? 0n) !== batch.firstOffset) throw new StalePositionError(batch);
    this.texts.push(...texts);
    this.#offsets.set(batch.partition, batch.nextOffset);
  }
}

/** What every event bus must do, by name. */
export const busCases = {
  "delivers the records of a key in the order of publishing": async (harness: BusHarness) => {
    const topic = newTopic();
    const bus = await harness.open([topic]);
    const recorder = new Recorder();
    const subscription = await subscribe(bus, topic, fromBeginning, recorder, 10);
    // Not awaited one by one: the order of the calls counts, not that of the acknowledgements.
    await Promise.all(series(topic, 700).map((one) => bus.publish([one])));
    await subscription.caughtUp();
    expect(recorder.records).toHaveLength(700);
    expectOrdered(recorder.records);
    expectContinuous(recorder.batches);
  },

  "keeps key, headers, value and partition as they were published": async (harness: BusHarness) => {
    const topic = newTopic();
    const bus = await harness.open([topic]);
    const recorder = new Recorder();
    const odd = {
      topic: topic.name,
      key: 'é"\\{},\n',
      headers: { ce_id: 'ü"\\,{}', empty: "" },
      value: Uint8Array.from([0, 255, 92]),
    };
    const empty = { topic: topic.name, key: "", headers: {}, value: new Uint8Array() };
    await bus.publish([odd, empty]);
    await (await subscribe(bus, topic, fromBeginning, recorder)).caughtUp();
    for (const { topic, key, headers, value } of [odd, empty]) {
      const found = recorder.records.find((one) => one.key === key);
      expect({ ...found, value: [...(found?.value ?? [])] }).toMatchObject({ topic, key, headers, value: [...value] });
    }
  },

  "publishes all records of a call or none": async (harness: BusHarness) => {
    const topic = newTopic();
    const bus = await harness.open([topic]);
    const before = await bus.endOffsets([topic.name]);
    const wrong = [
      { ...record(topic, "a", "x"), topic: "no such topic" },
      record(topic, "nul\0", "x"),
      { ...record(topic, "a", "x"), headers: { half: "\ud800" } },
      { ...record(topic, "a", "x"), value: new Uint8Array(1024 * 1024 + 1) },
    ];
    for (const bad of wrong) {
      await expect(bus.publish([record(topic, "a", "good"), bad])).rejects.toThrow(RangeError);
    }
    expect(await bus.endOffsets([topic.name])).toEqual(before);
  },

  "gives every record to one member of a group, and to every group": async (harness: BusHarness) => {
    const topic = newTopic();
    const buses = [await harness.open([topic]), await harness.open([topic])];
    const [first, second] = [newGroup(), newGroup()];
    const recorders = new Map([first, second].map((group) => [group, [] as Recorder[]]));
    const subscriptions: Subscription[] = [];
    for (const [group, members] of recorders) {
      // Two members in each bus: members of one process share as well.
      for (const bus of [...buses, ...buses]) {
        const recorder = new Recorder();
        members.push(recorder);
        subscriptions.push(await subscribe(bus, topic, group, recorder));
      }
    }
    const records = series(topic, 300);
    await Promise.all(records.map((one, index) => buses[index % 2]?.publish([one])));
    await Promise.all(subscriptions.map((subscription) => subscription.caughtUp()));
    for (const members of recorders.values()) {
      expect(sorted(members.flatMap(({ texts }) => texts))).toEqual(sorted(records.map(textOf)));
    }
  },

  "hands partitions over when a member leaves": async (harness: BusHarness) => {
    const topic = newTopic();
    const [one, other] = [await harness.open([topic]), await harness.open([topic])];
    const group = newGroup();
    const [before, after] = [new Recorder(), new Recorder()];
    const leaving = await subscribe(one, topic, group, before);
    await one.publish(series(topic, 70));
    await leaving.caughtUp();
    const staying = await subscribe(other, topic, group, after);
    await leaving.stop();
    const more = series(topic, 70, "later");
    await one.publish(more);
    await staying.caughtUp();
    expect(before.texts).toHaveLength(70);
    expect(sorted(after.texts)).toEqual(sorted(more.map(textOf)));
  },

  "continues a group where it stopped": async (harness: BusHarness) => {
    const topic = newTopic();
    const group = newGroup();
    const bus = await harness.open([topic]);
    const [before, after] = [new Recorder(), new Recorder()];
    await bus.publish(series(topic, 100));
    const first = await subscribe(bus, topic, group, before, 7);
    await first.caughtUp();
    await bus.stop();
    const again = await harness.open([topic]);
    const more = series(topic, 50, "later");
    await again.publish(more);
    await (await subscribe(again, topic, group, after, 7)).caughtUp();
    expect(before.texts).toHaveLength(100);
    expect(sorted(after.texts)).toEqual(sorted(more.map(textOf)));
    expectContinuous([...before.batches, ...after.batches]);
  },

  "gives every record to every reader of all": async (harness: BusHarness) => {
    const topic = newTopic();
    const buses = [await harness.open([topic]), await harness.open([topic])];
    const recorders = [new Recorder(), new Recorder(), new Recorder()];
    const records = series(topic, 200);
    await buses[0]?.publish(records.slice(0, 100));
    const subscriptions: Subscription[] = [];
    for (const [index, recorder] of recorders.entries()) {
      const bus = buses[index % 2];
      if (bus !== undefined) subscriptions.push(await subscribe(bus, topic, fromBeginning, recorder));
    }
    await buses[1]?.publish(records.slice(100));
    await Promise.all(subscriptions.map((subscription) => subscription.caughtUp()));
    for (const { texts } of recorders) expect(sorted(texts)).toEqual(sorted(records.map(textOf)));
  },

  "replays from given positions": async (harness: BusHarness) => {
    const topic = newTopic();
    const bus = await harness.open([topic]);
    await bus.publish(series(topic, 100));
    const positions = await bus.endOffsets([topic.name]);
    const later = series(topic, 100, "later");
    await bus.publish(later);
    const recorder = new Recorder();
    await (await subscribe(bus, topic, { kind: "all", from: positions }, recorder)).caughtUp();
    expect(sorted(recorder.texts)).toEqual(sorted(later.map(textOf)));
    // Partitions without a position are replayed whole.
    const rest = new Recorder();
    await (await subscribe(bus, topic, { kind: "all", from: positions.slice(1) }, rest)).caughtUp();
    const whole = rest.records.filter(({ partition }) => partition === positions[0]?.partition);
    expect(whole[0]?.offset).toBe(0n);
    expect(rest.records.length - whole.length).toBe(
      later.length - recorder.records.filter(({ partition }) => partition === positions[0]?.partition).length,
    );
  },

  "delivers a batch again until its handler succeeds, before anything behind it": async (harness: BusHarness) => {
    const topic = newTopic(1);
    const bus = await harness.open([topic]);
    for (const reader of [fromBeginning, newGroup()]) {
      const offered: bigint[] = [];
      const recorder = new Recorder(async ({ firstOffset }) => {
        offered.push(firstOffset);
        if (firstOffset === 10n && offered.filter((offset) => offset === 10n).length < 4) throw new Error("not yet");
      });
      const subscription = await subscribe(bus, topic, reader, recorder, 5);
      await bus.publish(series(topic, 20, randomUUID()));
      await subscription.caughtUp();
      expect(offered.slice(0, 7)).toEqual([0n, 5n, 10n, 10n, 10n, 10n, 15n]);
      expectContinuous(recorder.batches);
      await subscription.stop();
      expectOrdered(recorder.records);
    }
  },

  "delivers again what a crashed member left unfinished": async (harness: BusHarness) => {
    const topic = newTopic();
    const group = newGroup();
    const [dying, surviving, publisher] = [
      await harness.open([topic]),
      await harness.open([topic]),
      await harness.open([topic]),
    ];
    const hanging = Promise.withResolvers<void>();
    const started: Batch[] = [];
    const dead = new Recorder(async (batch) => {
      started.push(batch);
      if (batch.firstOffset > 0n) await hanging.promise;
    });
    await subscribe(dying, topic, group, dead, 5);
    const records = series(topic, 140);
    await publisher.publish(records);
    // A key has more records than a batch, so every partition with a key has a second batch to hang in.
    const partitions = new Set(records.map(({ key }) => partitionOf(key, topic.partitions))).size;
    await until(
      "the dying member hangs in the second batch of every partition",
      // A bus that goes on without waiting for the handler, as a planted bug does, begins third batches as well.
      () =>
        new Set(started.filter(({ firstOffset }) => firstOffset > 0n).map((batch) => batch.partition)).size ===
        partitions,
    );
    const heir = new Recorder();
    const subscription = await subscribe(surviving, topic, group, heir);
    harness.crash(dying);
    await subscription.caughtUp();
    hanging.resolve();
    const finished = started
      .filter(({ firstOffset }) => firstOffset === 0n)
      .flatMap((batch) => batch.records.map(textOf));
    expect(sorted([...finished, ...heir.texts])).toEqual(sorted(records.map(textOf)));
  },

  "has effects exactly once when the handler keeps its offset": async (
    harness: BusHarness,
    store: OffsetStore = new TransactionalStore(),
  ) => {
    const topic = newTopic();
    const buses = [await harness.open([topic]), await harness.open([topic])];
    let turn = 0;
    const handle = async (batch: Batch): Promise<void> => {
      turn++;
      if (turn % 5 === 0) throw new Error("failed before the commit");
      store.commit(batch, batch.records.map(textOf));
      if (turn % 3 === 0) throw new Error("the answer to the commit was lost");
    };
    const reader = {
      ...newGroup(),
      loadOffset: (name: string, partition: number) => store.loadOffset(name, partition),
    };
    const subscriptions = await Promise.all(
      buses.map((bus) => bus.subscribe({ topics: [topic.name], reader, handle, maxBatchRecords: 9 })),
    );
    const records = series(topic, 300);
    await Promise.all(records.map((one) => buses[0]?.publish([one])));
    await Promise.all(subscriptions.map((subscription) => subscription.caughtUp()));
    expect(sorted(store.texts)).toEqual(sorted(records.map(textOf)));
  },

  "sends poison to the dead-letter topic once, and nothing else": async (harness: BusHarness) => {
    const desc = exampleEvent(newTopic().name);
    const topic = topicOf(desc);
    const dead = deadLetterTopic(topic);
    const bus = await harness.open([topic]);
    const applied: number[] = [];
    let calls = 0;
    const consumer = await createConsumer({
      bus,
      desc,
      logger,
      reader: newGroup(),
      async apply(messages) {
        // A passing failure buries nothing.
        if (++calls === 1) throw Object.assign(new Error("terminating connection"), { code: "57P01" });
        const poison = messages.find(({ message }) => message.number === 3);
        if (poison) throw new PoisonError(poison.record, "three is not a number");
        if (messages.some(({ message }) => message.number === 6)) throw new TypeError("six breaks the code");
        applied.push(...messages.map(({ message }) => message.number));
      },
    });
    const event = (number: number): OutgoingRecord =>
      toRecord({
        schema: desc,
        message: { subject: "s", number },
        id: String(number),
        source: "test",
        type: "t",
        subject: "s",
        key: "s",
        time: new Date(0),
      });
    const records = Array.from({ length: 10 }, (_, number) => event(number));
    records[8] = { ...event(8), value: Uint8Array.from([255]) };
    await bus.publish(records);
    await consumer.caughtUp();
    expect(applied).toEqual([0, 1, 2, 4, 5, 7, 9]);
    const letters = new Recorder();
    await (await subscribe(bus, dead, fromBeginning, letters)).caughtUp();
    const found = letters.records.map(({ headers }) => [
      headers["dead-topic"],
      headers["dead-partition"],
      headers["dead-offset"],
      headers.ce_id,
    ]);
    expect(sorted(found.map(String))).toEqual([3, 6, 8].map((number) => `${topic.name},0,${number},${number}`));
    expect(letters.records.find(({ headers }) => headers.ce_id === "6")?.headers["dead-error"]).toBe(
      "TypeError: six breaks the code",
    );
  },

  "holds back while handlers are busy": async (harness: BusHarness) => {
    const topic = newTopic(2);
    const bus = await harness.open([topic]);
    const gate = Promise.withResolvers<void>();
    let inFlight = 0;
    let most = 0;
    const perPartition = new Map<number, number>();
    const recorder = new Recorder(async ({ partition, records }) => {
      expect(perPartition.get(partition) ?? 0).toBe(0);
      perPartition.set(partition, 1);
      inFlight += records.length;
      most = Math.max(most, inFlight);
      await gate.promise;
      inFlight -= records.length;
      perPartition.set(partition, 0);
    });
    const subscription = await subscribe(bus, topic, fromBeginning, recorder, 10);
    const records = series(topic, 200);
    await bus.publish(records);
    await until("both partitions have a batch in flight", () => inFlight === 20);
    gate.resolve();
    await subscription.caughtUp();
    expect(most).toBe(20);
    expect(recorder.records).toHaveLength(200);
  },

  "delivers heartbeats behind what was published before them": async (harness: BusHarness) => {
    const topic = newTopic(2);
    const bus = await harness.open([topic]);
    const gate = Promise.withResolvers<void>();
    const recorder = new Recorder(() => gate.promise);
    const handledAt = new Map<string, number>();
    const issuedAt = new Date(1_234_567);
    await bus.subscribe({
      topics: [topic.name],
      reader: fromBeginning,
      handle: recorder.handle,
      maxBatchRecords: 10,
      onHeartbeat({ partition, issuedAt }) {
        handledAt.set(
          `${partition}@${issuedAt.getTime()}`,
          recorder.records.filter((one) => one.partition === partition).length,
        );
      },
    });
    const records = series(topic, 100);
    await bus.publish(records);
    await bus.heartbeat(topic.name, issuedAt);
    // A second reader shows that the heartbeat is in the log while the first one is still held up.
    const seen = new Set<number>();
    await bus.subscribe({
      topics: [topic.name],
      reader: fromBeginning,
      handle: nothing,
      onHeartbeat: ({ partition }) => void seen.add(partition),
    });
    await until("the free reader has both heartbeats", () => seen.size === 2);
    expect(handledAt.size).toBe(0);
    gate.resolve();
    await until("the held reader has both heartbeats", () => handledAt.size === 2);
    expect([...handledAt.values()].reduce((sum, count) => sum + count, 0)).toBe(100);
    expect([...handledAt.keys()].every((key) => key.endsWith("@1234567"))).toBe(true);
  },

  "loses nothing to transactions that commit late or fail": async (harness: BusHarness) => {
    const topic = newTopic(2);
    const buses = await Promise.all([1, 2, 3].map(() => harness.open([topic])));
    await harness.disturbCommits(topic);
    const recorder = new Recorder();
    const reading = buses[0];
    if (reading === undefined) throw new Error("no bus");
    const subscription = await subscribe(reading, topic, fromBeginning, recorder, 20);
    const published: string[] = [];
    // Whether what was not acknowledged is in the log is not known: it may be there twice.
    const again = new Set<string>();
    await Promise.all(
      buses.map(async (bus, writer) => {
        for (const one of series(topic, 100, `writer-${writer}`)) {
          if ((await publishStubbornly(bus, [one])) > 1) again.add(textOf(one));
          published.push(textOf(one));
        }
      }),
    );
    await subscription.caughtUp();
    const read = new Set(recorder.texts);
    const lost = published.filter((text) => !read.has(text));
    if (lost.length > 0) throw new Error(`${lost.length} of ${published.length} acknowledged records were lost`);
    expectOrdered(recorder.records, again);
    expectContinuous(recorder.batches);
  },

  "reads and publishes on after the log was out of reach": async (harness: BusHarness) => {
    const topic = newTopic();
    const bus = await harness.open([topic]);
    const recorder = new Recorder();
    const group = new Recorder();
    const subscriptions = [
      await subscribe(bus, topic, fromBeginning, recorder),
      await subscribe(bus, topic, newGroup(), group),
    ];
    await bus.publish(series(topic, 50));
    harness.setReachable(bus, false);
    await expect(bus.publish([record(topic, "lost", "lost:0")])).rejects.toMatchObject({ code: "UNAVAILABLE" });
    harness.setReachable(bus, true);
    await publishStubbornly(bus, series(topic, 50, "later"));
    await Promise.all(subscriptions.map((subscription) => subscription.caughtUp()));
    for (const { texts } of [recorder, group]) expect(new Set(texts).size).toBe(100);
  },

  "has an id, the same for everybody, and tells when the log can't be asked for it": async (harness: BusHarness) => {
    const [bus, other] = [await harness.open([newTopic()]), await harness.open([newTopic()])];
    const id = await bus.id();
    expect(id).toMatch(/^[a-z]+:[\w-]{16,}$/);
    expect(await other.id()).toBe(id);
    harness.setReachable(bus, false);
    await expect(bus.id()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    harness.setReachable(bus, true);
    expect(await other.id()).toBe(id);
  },

  "tells who waits for it that a subscription was stopped": async (harness: BusHarness) => {
    const topic = newTopic(1);
    const bus = await harness.open([topic]);
    const gate = Promise.withResolvers<void>();
    const recorder = new Recorder(() => gate.promise);
    const subscription = await subscribe(bus, topic, fromBeginning, recorder);
    await bus.publish([record(topic, "a", "a:0")]);
    const waiting = expect(subscription.caughtUp()).rejects.toThrow("stopped");
    const stopped = subscription.stop();
    gate.resolve();
    await Promise.all([waiting, stopped]);
    await bus.stop();
    await expect(bus.publish([record(topic, "a", "a:1")])).rejects.toMatchObject({ reason: "SHUTTING_DOWN" });
  },
} satisfies Record<string, (harness: BusHarness) => Promise<void>>;
