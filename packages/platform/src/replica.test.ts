import { describe, expect, test } from "@jest/globals";
import { createReplica, type ReplicaOptions } from "./replica.ts";

interface Value {
  readonly version: bigint;
  readonly name: string;
}

const one: Value = { version: 1n, name: "one" };
const two: Value = { version: 2n, name: "two" };

function setUp(owned: Record<string, Value> = {}, options: Partial<ReplicaOptions<Value>> = {}) {
  const clock = { ms: 1_000_000 };
  const asked: string[] = [];
  const owner = new Map(Object.entries(owned));
  const replica = createReplica<Value>({
    name: "things",
    lookUp: async (key) => {
      asked.push(key);
      return owner.get(key);
    },
    maxEntries: 100,
    maxAbsent: 100,
    absentTtlMs: 5_000,
    maxLookups: 100,
    now: () => clock.ms,
    ...options,
  });
  return { replica, owner, asked, clock };
}

describe("values", () => {
  test("are taken over by a higher version only, whatever their order", () => {
    const { replica } = setUp();
    expect(replica.apply("a", two)).toBe(true);
    expect(replica.apply("a", one)).toBe(false);
    expect(replica.apply("a", { ...two, name: "other" })).toBe(false);
    expect(replica.peek("a")).toBe(two);
    expect(replica.size).toBe(1);
  });

  test("beyond the bound go, those first that were not used again, and are looked up when they are needed", async () => {
    const { replica, asked } = setUp({ a: one, b: one, c: one }, { maxEntries: 2 });
    for (const key of ["a", "b", "a", "c"]) await replica.get(key);
    expect(asked).toEqual(["a", "b", "c"]);
    expect(replica.size).toBe(2);
    expect(replica.peek("a")).toBe(one);
    expect(replica.peek("b")).toBeUndefined();
    expect(await replica.get("b")).toBe(one);
    expect(asked).toEqual(["a", "b", "c", "b"]);
  });
});

describe("with no room left", () => {
  test("an event about something else drives nothing out", async () => {
    const { replica, asked } = setUp({ a: one, b: one }, { maxEntries: 1 });
    await replica.get("a");
    expect(replica.apply("b", one)).toBe(true);
    expect(replica.peek("a")).toBe(one);
    expect(replica.peek("b")).toBeUndefined();
    expect(await replica.get("b")).toBe(one);
    expect(asked).toEqual(["a", "b"]);
  });

  test.each(["driven out", "never in memory"])("a value %s is not replaced by a lower version", async (what) => {
    const answers = [one, one, two];
    const { replica, asked } = setUp(
      { b: one },
      { maxEntries: 1, lookUp: async (key) => (key === "b" ? one : answers.shift()) },
    );
    if (what === "driven out") {
      replica.apply("a", two);
      await replica.get("b");
    } else {
      await replica.get("b");
      replica.apply("a", two);
    }
    expect(replica.apply("a", one)).toBe(false);
    expect(await replica.get("a")).toBe(two);
    expect(asked).toEqual([]);
    expect(answers).toEqual([]);
  });

  test("an owner that stays behind its own events is refused, not believed", async () => {
    const { replica, asked } = setUp({ a: one, b: one }, { maxEntries: 1 });
    await replica.get("b");
    replica.apply("a", two);
    await expect(replica.get("a")).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE" });
    expect(asked).toEqual(["b", "a", "a", "a"]);
  });

  test("what an event tells during a look-up counts, even where its note is driven out meanwhile", async () => {
    const answers = [Promise.withResolvers<Value>(), Promise.withResolvers<Value>()];
    let asked = 0;
    const { replica } = setUp({}, { maxEntries: 1, lookUp: async () => answers[asked++]?.promise });
    replica.apply("room", one);
    const waiting = replica.get("a");
    replica.apply("a", two);
    replica.apply("b", one);
    answers[0]?.resolve(one);
    answers[1]?.resolve(two);
    expect(await waiting).toBe(two);
    expect(asked).toBe(2);
  });
});

describe("values from elsewhere", () => {
  test("are current by the version that events told, or by when they were read", async () => {
    const { replica, clock } = setUp({ b: one }, { maxEntries: 1 });
    expect(replica.isCurrent("a", 9n, clock.ms)).toBe(false);
    replica.completeFrom(1_000_000);
    expect(replica.isCurrent("a", 9n, 1_000_000)).toBe(false);
    expect(replica.isCurrent("a", 1n, 1_000_001)).toBe(true);
    replica.apply("room", one);
    replica.apply("a", two);
    expect(replica.isCurrent("a", 1n, 2_000_000)).toBe(false);
    expect(replica.isCurrent("a", 2n, 0)).toBe(true);
  });

  test("can't be judged once the note of their version may be gone", () => {
    const { replica, clock } = setUp({}, { maxEntries: 1 });
    replica.completeFrom(1_000_000);
    replica.apply("room", one);
    clock.ms = 1_005_000;
    replica.apply("a", two);
    clock.ms = 1_009_000;
    replica.apply("b", one);
    expect(replica.isCurrent("a", 1n, 1_005_000)).toBe(false);
    expect(replica.isCurrent("a", 2n, 1_005_001)).toBe(true);
  });
});

describe("an event that comes again once its key's note is gone", () => {
  test("does not make an old value from elsewhere current", () => {
    const { replica, clock } = setUp({}, { maxEntries: 1 });
    replica.completeFrom(1_000_000);
    replica.apply("room", one);
    clock.ms = 1_005_000;
    for (const [key, value] of [
      ["a", one],
      ["a", two],
      ["b", one],
      ["a", one],
    ] as const)
      replica.apply(key, value);
    expect(replica.isCurrent("a", 1n, 1_004_000)).toBe(false);
    expect(replica.isCurrent("a", 2n, 1_005_001)).toBe(true);
  });

  test("does not hide from a look-up what the note told", async () => {
    const answers = [Promise.withResolvers<Value>(), Promise.withResolvers<Value>()];
    let asked = 0;
    const { replica } = setUp({}, { maxEntries: 1, lookUp: async () => answers[asked++]?.promise });
    replica.apply("room", one);
    const waiting = replica.get("a");
    for (const [key, value] of [
      ["a", two],
      ["b", one],
      ["a", one],
    ] as const)
      replica.apply(key, value);
    answers[0]?.resolve(one);
    answers[1]?.resolve(two);
    expect(await waiting).toBe(two);
  });
});

describe("a version that must have been seen", () => {
  test("is waited for, for so long", async () => {
    const { replica } = setUp();
    replica.apply("a", one);
    let arrived = false;
    const waiting = replica.arrival("a", 2n, 60_000).then(() => {
      arrived = true;
    });
    replica.apply("b", two);
    await Promise.resolve();
    expect(arrived).toBe(false);
    replica.apply("a", two);
    await waiting;
    await replica.arrival("a", 2n, 60_000);
    await replica.arrival("a", 3n, 1);
  });

  test("is asked for again when the look-up under way was too early", async () => {
    const early = Promise.withResolvers<Value>();
    const answers = [early.promise, Promise.resolve(two)];
    const { replica } = setUp({}, { lookUp: async () => answers.shift() });
    const before = replica.get("a");
    const after = replica.refresh("a", 2n);
    early.resolve(one);
    expect(await before).toBe(one);
    expect(await after).toBe(two);
  });

  test("is an error when the owner has not got it", async () => {
    const { replica } = setUp({ a: one });
    await expect(replica.refresh("a", 2n)).rejects.toMatchObject({
      reason: "DEPENDENCY_UNAVAILABLE",
      message: "version 2 of what is asked about is not among the things yet; try again",
    });
  });
});

describe("look-ups", () => {
  test("happen once for all who wait, and not again", async () => {
    const { replica, asked } = setUp({ a: one });
    const found = await Promise.all(Array.from({ length: 50 }, () => replica.get("a")));
    expect(new Set(found)).toEqual(new Set([one]));
    expect(await replica.get("a")).toBe(one);
    expect(asked).toEqual(["a"]);
  });

  test("remember what does not exist until its time is over", async () => {
    const { replica, asked, clock, owner } = setUp();
    expect(replica.peek("a")).toBeUndefined();
    expect(await replica.get("a")).toBeUndefined();
    owner.set("a", one);
    clock.ms += 4_999;
    expect(replica.peek("a")).toBeNull();
    expect(await replica.get("a")).toBeUndefined();
    expect(asked).toHaveLength(1);
    clock.ms += 1;
    expect(await replica.get("a")).toBe(one);
    expect(asked).toHaveLength(2);
  });

  test("what does not exist is asked for again in time though the clock is set back, or the answer was long in coming", async () => {
    const steady = { ms: 0 };
    const held = Promise.withResolvers<undefined>();
    const { replica, clock } = setUp({}, { steadyMs: () => steady.ms, lookUp: () => held.promise });
    const waiting = replica.get("a");
    clock.ms += 4_000;
    steady.ms += 4_000;
    held.resolve(undefined);
    expect(await waiting).toBeUndefined();
    expect(replica.peek("a")).toBeNull();
    clock.ms -= 3_600_000;
    steady.ms += 999;
    expect(replica.peek("a")).toBeNull();
    steady.ms += 1;
    expect(replica.peek("a")).toBeUndefined();
  });

  test("an event ends the time of what does not exist at once", async () => {
    const { replica, asked } = setUp();
    await replica.get("a");
    replica.apply("a", one);
    expect(await replica.get("a")).toBe(one);
    expect(asked).toHaveLength(1);
  });

  test("what an event brought and the bound drove out is not taken as absent", async () => {
    const { replica, owner } = setUp({}, { maxEntries: 1 });
    await replica.get("a");
    owner.set("a", one);
    owner.set("b", one);
    replica.apply("a", one);
    await replica.get("b");
    expect(replica.peek("a")).toBeUndefined();
    expect(await replica.get("a")).toBe(one);
  });

  test("remember a bounded number of keys that do not exist, the latest ones", async () => {
    const { replica } = setUp({}, { maxAbsent: 2 });
    for (const key of ["a", "b", "c"]) await replica.get(key);
    expect(["a", "b", "c"].map((key) => replica.peek(key))).toEqual([undefined, null, null]);
  });

  test("beyond the allowed number at once are refused, not queued", async () => {
    const { promise: held, resolve: release } = Promise.withResolvers<undefined>();
    const { replica } = setUp({}, { lookUp: () => held, maxLookups: 2 });
    const waiting = ["a", "b", "a"].map((key) => replica.get(key));
    await expect(replica.get("c")).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "OVERLOADED",
      message: "too many things are being looked up; try again",
    });
    release(undefined);
    await Promise.all(waiting);
    expect(await replica.get("c")).toBeUndefined();
  });

  test("that fail reach all who wait and are not remembered", async () => {
    let attempts = 0;
    const { replica } = setUp(
      {},
      {
        lookUp: async () => {
          if (attempts++ === 0) throw new Error("the owner is away");
          return one;
        },
      },
    );
    const waiting = [replica.get("a"), replica.get("a")];
    for (const result of await Promise.allSettled(waiting)) expect(result.status).toBe("rejected");
    expect(await replica.get("a")).toBe(one);
    expect(attempts).toBe(2);
  });

  test.each([
    ["an older value", one],
    ["nothing", undefined],
  ])("that find %s do not undo what an event brought meanwhile", async (_what, answer) => {
    const { promise: held, resolve: release } = Promise.withResolvers<Value | undefined>();
    const { replica } = setUp({}, { lookUp: () => held });
    const waiting = replica.get("a");
    replica.apply("a", two);
    release(answer);
    expect(await waiting).toBe(two);
    expect(replica.peek("a")).toBe(two);
  });
});
