import { describe, expect, test } from "@jest/globals";
import type { OutgoingRecord } from "./bus.ts";
import { createGroupWriter } from "./group-writer.ts";

const records = (count: number, bytes = 1): OutgoingRecord[] =>
  Array.from({ length: count }, () => ({
    topic: "t",
    key: "k",
    headers: {},
    value: new Uint8Array(bytes),
  }));

/** A log whose transactions end one by one, by hand. */
function manualLog() {
  const transactions: { size: number; end: PromiseWithResolvers<void> }[] = [];
  const append = (group: readonly OutgoingRecord[]): Promise<void> => {
    const end = Promise.withResolvers<void>();
    transactions.push({ size: group.length, end });
    return end.promise;
  };
  const sizes = (): number[] => transactions.map(({ size }) => size);
  return { append, transactions, sizes };
}

describe("group commit", () => {
  test("writes at once, and what gathers meanwhile together", async () => {
    const log = manualLog();
    const writer = createGroupWriter(log.append);
    const first = writer.write(records(1));
    const others = [writer.write(records(2)), writer.write(records(3))];
    expect(log.sizes()).toEqual([1]);
    log.transactions[0]?.end.resolve();
    await first;
    expect(log.sizes()).toEqual([1, 5]);
    log.transactions[1]?.end.resolve();
    await Promise.all(others);
    await writer.flushed();
  });

  test("bounds a transaction by records and bytes, and never splits a call", async () => {
    const log = manualLog();
    const writer = createGroupWriter(log.append);
    const writes = [records(1), records(1_500), records(1_000), records(5, 1024 * 1024), records(2_500)].map(
      writer.write,
    );
    for (let index = 0; index < 5; index++) {
      log.transactions[index]?.end.resolve();
      await writes[index];
    }
    expect(log.sizes()).toEqual([1, 1_500, 1_000, 5, 2_500]);
  });

  test("tells every caller of a transaction that it failed, and goes on", async () => {
    const log = manualLog();
    const writer = createGroupWriter(log.append);
    const first = expect(writer.write(records(1))).rejects.toThrow("disk full");
    const second = writer.write(records(1));
    log.transactions[0]?.end.reject(new Error("disk full"));
    await first;
    log.transactions[1]?.end.resolve();
    await second;
  });

  test("refuses what would wait beyond the bound", async () => {
    const log = manualLog();
    const writer = createGroupWriter(log.append);
    const writes = Array.from({ length: 5 }, () => writer.write(records(10_000)));
    await expect(writer.write(records(1))).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "OVERLOADED" });
    for (const [index, write] of writes.entries()) {
      log.transactions[index]?.end.resolve();
      await write;
    }
    const last = writer.write(records(1));
    log.transactions[5]?.end.resolve();
    await last;
  });
});
