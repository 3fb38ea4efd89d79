import { describe, expect, test } from "@jest/globals";
import { createHandoff } from "./handoff.ts";

describe("a handoff", () => {
  test("lets a value be put once the reader asks for the one after it", async () => {
    const handoff = createHandoff<number>();
    const log: string[] = [];
    const first = handoff.put(1).then(() => log.push("put 1"));
    const reader = handoff[Symbol.asyncIterator]();
    await expect(reader.next()).resolves.toEqual({ done: false, value: 1 });
    expect(log).toEqual([]);
    const second = reader.next();
    await first;
    expect(log).toEqual(["put 1"]);
    void handoff.put(2);
    await expect(second).resolves.toEqual({ done: false, value: 2 });
  });

  test("delivers the last value before its end or its failure; the first outcome counts", async () => {
    const ending = createHandoff<number>();
    void ending.put(1);
    ending.end();
    ending.fail(new Error("too late"));
    const values: number[] = [];
    for await (const value of ending) values.push(value);
    expect(values).toEqual([1]);

    const failing = createHandoff<number>();
    void failing.put(1);
    failing.fail(new Error("broken"));
    const reader = failing[Symbol.asyncIterator]();
    await expect(reader.next()).resolves.toEqual({ done: false, value: 1 });
    await expect(reader.next()).rejects.toThrow("broken");
  });
});
