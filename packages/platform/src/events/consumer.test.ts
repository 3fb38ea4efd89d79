import { toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "@jest/globals";
import { platformError } from "../errors.ts";
import { createLogger } from "../logging.ts";
import { exampleEvent } from "../testing/example-event.ts";
import {
  type Batch,
  type BusRecord,
  type EventBus,
  type OutgoingRecord,
  StalePositionError,
  type SubscribeOptions,
} from "./bus.ts";
import { type Consumed, createConsumer, isTransient, PoisonError } from "./consumer.ts";

const desc = exampleEvent("example.v1");
const logger = createLogger({ level: "silent", name: "consumer-test" });

function recordOf(number: number): BusRecord {
  const value = toBinary(desc, { $typeName: "example.v1.ExampleEvent", subject: "s", number });
  return { topic: "example.v1", partition: 0, offset: BigInt(number), key: "s", headers: { n: String(number) }, value };
}

function batchOf(records: readonly BusRecord[], signal = new AbortController().signal): Batch {
  const [firstOffset, last] = [records[0]?.offset ?? 0n, records.at(-1)?.offset ?? 0n];
  return { topic: "example.v1", partition: 0, records, firstOffset, nextOffset: last + 1n, signal };
}

type Apply = (messages: readonly Consumed<typeof desc>[], batch: Batch) => Promise<void>;

/** A consumer whose batches are delivered by hand, and what it buried. */
async function startConsumer(apply: Apply) {
  const dead: OutgoingRecord[] = [];
  const state = { publishFails: false };
  const subscriptions: SubscribeOptions[] = [];
  const bus: Pick<EventBus, "publish" | "subscribe"> = {
    async publish(records) {
      if (state.publishFails) throw platformError("DEPENDENCY_UNAVAILABLE", "no log");
      dead.push(...records);
    },
    async subscribe(options) {
      subscriptions.push(options);
      return { caughtUp: async () => undefined, stop: async () => undefined };
    },
  };
  await createConsumer({ bus, desc, reader: { kind: "group", group: "g" }, apply, logger });
  const [subscription] = subscriptions;
  if (subscription === undefined) throw new Error("the consumer did not subscribe");
  return { dead, state, deliver: subscription.handle };
}

const numbers = (messages: readonly Consumed<typeof desc>[]): number[] => messages.map(({ message }) => message.number);

describe("a consumer", () => {
  test("applies what a batch holds", async () => {
    const applied: number[][] = [];
    const { deliver, dead } = await startConsumer(async (messages) => void applied.push(numbers(messages)));
    await deliver(batchOf([0, 1, 2].map(recordOf)));
    expect(applied).toEqual([[0, 1, 2]]);
    expect(dead).toEqual([]);
  });

  test("buries what can't be decoded and applies the rest", async () => {
    const applied: number[][] = [];
    const { deliver, dead } = await startConsumer(async (messages) => void applied.push(numbers(messages)));
    const broken = { ...recordOf(1), value: Uint8Array.from([255, 255]) };
    await deliver(batchOf([recordOf(0), broken, recordOf(2)]));
    expect(applied).toEqual([[0, 2]]);
    expect(dead).toHaveLength(1);
    expect(dead[0]).toMatchObject({ topic: "example.v1.dead", key: "s", value: broken.value });
    expect(dead[0]?.headers).toMatchObject({
      n: "1",
      "dead-topic": "example.v1",
      "dead-partition": "0",
      "dead-offset": "1",
    });
    expect(dead[0]?.headers["dead-error"]).not.toBe("");
  });

  test("moves the position past a batch of nothing but poison", async () => {
    const moved: Batch[] = [];
    const { deliver } = await startConsumer(async (_messages, batch) => void moved.push(batch));
    const batch = batchOf([{ ...recordOf(4), value: Uint8Array.from([255]) }]);
    await deliver(batch);
    expect(moved).toEqual([batch]);
  });

  test("buries nothing while the trouble may pass, however often the batch comes", async () => {
    let failures = 20;
    const { deliver, dead } = await startConsumer(async () => {
      if (failures-- > 0) throw Object.assign(new Error("shutting down"), { code: "57P01" });
    });
    const batch = batchOf([0, 1].map(recordOf));
    for (let round = 0; round < 20; round++) await expect(deliver(batch)).rejects.toThrow("shutting down");
    await deliver(batch);
    expect(dead).toEqual([]);
  });

  test("buries a letter once although its batch comes again", async () => {
    let failures = 3;
    const { deliver, dead } = await startConsumer(async (messages) => {
      const poison = messages.find(({ message }) => message.number === 1);
      if (poison) throw new PoisonError(poison.record, "one");
      if (failures-- > 0) throw platformError("DEPENDENCY_UNAVAILABLE", "no database");
    });
    const batch = batchOf([recordOf(0), recordOf(1), { ...recordOf(2), value: Uint8Array.from([255]) }]);
    for (let round = 0; round < 3; round++) await expect(deliver(batch)).rejects.toThrow("no database");
    await deliver(batch);
    expect(dead.map(({ headers }) => headers.n).toSorted()).toEqual(["1", "2"]);
  });

  test("buries a letter once although its batch comes again cut otherwise, or from within", async () => {
    const { deliver, dead } = await startConsumer(async (messages) => {
      if (numbers(messages).includes(3)) throw platformError("DEPENDENCY_UNAVAILABLE", "no database");
    });
    const records = [recordOf(0), recordOf(1), { ...recordOf(2), value: Uint8Array.from([255]) }, recordOf(3)];
    await expect(deliver(batchOf(records))).rejects.toThrow("no database");
    await deliver(batchOf(records.slice(0, 1)));
    await expect(deliver(batchOf(records.slice(1)))).rejects.toThrow("no database");
    await expect(deliver(batchOf(records.slice(2)))).rejects.toThrow("no database");
    expect(dead.map(({ headers }) => headers.n)).toEqual(["2"]);
  });

  test("tries a failing batch five times, then one by one, and buries only what fails", async () => {
    const applied: number[][] = [];
    const moves: bigint[][] = [];
    const { deliver, dead } = await startConsumer(async (messages, { firstOffset, nextOffset }) => {
      if (numbers(messages).includes(2)) throw new TypeError("two");
      applied.push(numbers(messages));
      moves.push([firstOffset, nextOffset]);
    });
    const batch = { ...batchOf([0, 1, 2, 3].map(recordOf)), nextOffset: 9n };
    for (let round = 0; round < 4; round++) await expect(deliver(batch)).rejects.toThrow("two");
    await deliver(batch);
    expect(applied).toEqual([[0], [1], [], [3]]);
    expect(moves).toEqual([
      [0n, 1n],
      [1n, 2n],
      [2n, 3n],
      [3n, 9n],
    ]);
    expect(dead.map(({ headers }) => headers["dead-error"])).toEqual(["TypeError: two"]);
  });

  test("goes no further when a dead letter can't be written", async () => {
    let applied = 0;
    const { deliver, dead, state } = await startConsumer(async () => void applied++);
    const batch = batchOf([{ ...recordOf(0), value: Uint8Array.from([255]) }, recordOf(1)]);
    state.publishFails = true;
    await expect(deliver(batch)).rejects.toThrow("no log");
    expect(applied).toBe(0);
    state.publishFails = false;
    await deliver(batch);
    expect([applied, dead.length]).toEqual([1, 1]);
  });

  test("stops between single events when its subscription ends", async () => {
    const ending = new AbortController();
    const applied: number[][] = [];
    const { deliver, dead } = await startConsumer(async (messages) => {
      if (messages.length > 1) throw new TypeError("batch");
      applied.push(numbers(messages));
      ending.abort(new Error("ending"));
    });
    const batch = batchOf([0, 1].map(recordOf), ending.signal);
    for (let round = 0; round < 4; round++) await expect(deliver(batch)).rejects.toThrow("batch");
    await expect(deliver(batch)).rejects.toThrow("ending");
    expect(applied).toEqual([[0]]);
    expect(dead).toEqual([]);
  });
});

describe("isTransient", () => {
  const sqlError = (code: string): Error => Object.assign(new Error("sql"), { code });
  test.each([
    ["an overload", platformError("OVERLOADED", "x"), true],
    ["a conflict", platformError("CONFLICT_RETRY", "x"), true],
    ["a wrong field", platformError("INVALID_FIELD", "x"), false],
    ["a stale position", new StalePositionError({ topic: "t", partition: 0, firstOffset: 1n }), true],
    ["a deadlock", sqlError("40P01"), true],
    ["a lock timeout", sqlError("55P03"), true],
    ["a statement timeout", sqlError("57014"), true],
    ["a broken connection", sqlError("08006"), true],
    ["a refused connection", sqlError("ECONNREFUSED"), true],
    ["a full disk, as the cause", new Error("wrapped", { cause: sqlError("53100") }), true],
    ["a transaction idle too long", sqlError("25P03"), true],
    ["a transaction that had failed already", sqlError("25P02"), false],
    ["a duplicate", sqlError("23505"), false],
    ["a malformed value", sqlError("22P02"), false],
    ["a bug", new TypeError("x"), false],
    ["no error at all", "text", false],
  ])("%s", (_name, error, expected) => {
    expect(isTransient(error)).toBe(expected);
  });
});
