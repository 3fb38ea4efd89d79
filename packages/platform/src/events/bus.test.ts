import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { deadLetterTopic, partitionOf } from "./bus.ts";

describe("partitionOf", () => {
  test("never moves a key: the FNV-1a test vectors", () => {
    const two32 = 2 ** 32;
    expect(partitionOf("", two32)).toBe(0x811c9dc5);
    expect(partitionOf("a", two32)).toBe(0xe40c292c);
    expect(partitionOf("foobar", two32)).toBe(0xbf9cf968);
  });

  test("stays inside the partitions", () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 1, max: 64 }), (key, partitions) => {
        const partition = partitionOf(key, partitions);
        return Number.isInteger(partition) && partition >= 0 && partition < partitions;
      }),
    );
  });
});

test("dead letters are kept for at least 90 days", () => {
  const dayMs = 24 * 60 * 60 * 1000;
  const topic = { name: "usage", partitions: 4, compacted: true, retentionMs: 7 * dayMs };
  expect(deadLetterTopic(topic)).toEqual({
    name: "usage.dead",
    partitions: 1,
    compacted: false,
    retentionMs: 90 * dayMs,
  });
  expect(deadLetterTopic({ ...topic, retentionMs: 365 * dayMs }).retentionMs).toBe(365 * dayMs);
});
