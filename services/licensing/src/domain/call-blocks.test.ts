import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { blockOf, dayEndsIn, dayOf, MAX_BLOCK } from "./call-blocks.ts";

describe("a block", () => {
  const facts = fc.record({
    limit: fc.integer({ min: 1, max: 100_000 }),
    taken: fc.nat(100_100),
    wanted: fc.integer({ min: 1, max: 1_000 }),
    waiting: fc.integer({ min: 1, max: 500 }),
  });

  test("never goes beyond the limit, is never empty while something is left, and serves all who wait if it can", () => {
    fc.assert(
      fc.property(facts, (given) => {
        const left = Math.max(0, given.limit - given.taken);
        const block = blockOf(given);
        expect(block).toBeLessThanOrEqual(left);
        expect(block).toBeGreaterThanOrEqual(Math.min(left, given.waiting));
        expect(block).toBeLessThanOrEqual(Math.max(given.waiting, MAX_BLOCK));
      }),
    );
  });

  test.each([
    ["as wanted, while much is left", { taken: 0, wanted: 4, waiting: 1 }, 4],
    ["at most 64", { taken: 0, wanted: 1_000, waiting: 1 }, 64],
    ["an eighth of what is left", { taken: 1_240, wanted: 64, waiting: 1 }, 25],
    ["one of the last eight", { taken: 1_433, wanted: 64, waiting: 1 }, 1],
    ["for all who wait", { taken: 1_433, wanted: 64, waiting: 5 }, 5],
    ["what is left for those who wait", { taken: 1_437, wanted: 64, waiting: 50 }, 3],
    ["nothing at the limit", { taken: 1_440, wanted: 64, waiting: 1 }, 0],
    ["nothing when the limit was lowered", { taken: 2_000, wanted: 64, waiting: 1 }, 0],
  ])("is %s", (_what, given, block) => {
    expect(blockOf({ limit: 1_440, ...given })).toBe(block);
  });
});

test("days are those of UTC", () => {
  expect(dayOf(new Date("2026-11-25T23:59:59.999Z"))).toBe("2026-11-25");
  expect(dayOf(new Date("2026-11-25T23:30:00-01:00"))).toBe("2026-11-26");
  expect(dayEndsIn(new Date("2026-11-25T23:59:59.999Z"))).toBe(1);
  expect(dayEndsIn(new Date("2026-11-25T00:00:00Z"))).toBe(86_400_000);
});
