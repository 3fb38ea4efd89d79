import { describe, expect, test } from "@jest/globals";
import { createFreshness } from "./freshness.ts";

function setUp(partitions: number) {
  const clock = { ms: 0 };
  const freshness = createFreshness(partitions, () => clock.ms);
  const at = (ms: number, readAtMs?: number): number => {
    clock.ms = ms;
    return freshness.stalenessMs(readAtMs);
  };
  return { freshness, at };
}

describe("createFreshness", () => {
  test("counts from the reading of the snapshots until heartbeats come", () => {
    const { freshness, at } = setUp(2);
    freshness.begin(1_000);
    expect(at(1_500)).toBe(500);
  });

  test("is as old as the oldest partition: one that is cut off shows", () => {
    const { freshness, at } = setUp(3);
    freshness.begin(1_000);
    for (const partition of [0, 1, 2]) freshness.heard(partition, 2_000);
    expect(at(2_100)).toBe(100);
    for (const partition of [0, 2]) freshness.heard(partition, 9_000);
    expect(at(9_100)).toBe(7_100);
    freshness.heard(1, 9_000);
    expect(at(9_100)).toBe(100);
  });

  test("a log that delivers everything late is as old as what it delivers", () => {
    const { freshness, at } = setUp(1);
    for (let ms = 60_000; ms <= 600_000; ms += 1_000) {
      freshness.heard(0, ms - 60_000);
      expect(at(ms)).toBe(60_000);
    }
  });

  test("what licensing told later than the last heartbeat is younger", () => {
    const { freshness, at } = setUp(1);
    freshness.heard(0, 5_000);
    expect(at(9_000, 8_000)).toBe(1_000);
    expect(at(9_000, 4_000)).toBe(4_000);
  });

  test("a late heartbeat or a second start never makes facts look older", () => {
    const { freshness, at } = setUp(1);
    freshness.heard(0, 5_000);
    freshness.heard(0, 4_000);
    freshness.begin(3_000);
    expect(at(5_000)).toBe(0);
  });

  test("a heartbeat of a clock ahead of ours counts as no age", () => {
    const { freshness, at } = setUp(1);
    freshness.heard(0, 5_000);
    expect(at(4_000)).toBe(0);
  });
});
