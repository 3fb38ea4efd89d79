import { expect, test } from "@jest/globals";
import { createTurnClock } from "./turn-clock.ts";

test("the clocks are read once for what is done without waiting, and again after", async () => {
  const now = createTurnClock();
  const before = now();
  expect(now()).toBe(before);
  await Promise.resolve();
  const after = now();
  expect(after).not.toBe(before);
  expect(after.steadyMs).toBeGreaterThanOrEqual(before.steadyMs);
});
