import { expect, test } from "@jest/globals";
import { createWindowLimit } from "./window-limit.ts";

function limit(max: number, maxCallers = 100) {
  const clock = { ms: 120_000 };
  return { clock, limit: createWindowLimit({ max, windowMs: 60_000, maxCallers, now: () => clock.ms }) };
}

test("so many of a caller are let through in a window, whatever others do", () => {
  const { limit: two } = limit(2);
  expect(two.take("a")).toEqual({ taken: true, limit: 2, remaining: 1, resetMs: 60_000 });
  expect(two.take("a")).toMatchObject({ taken: true, remaining: 0 });
  for (let i = 0; i < 5; i++) expect(two.take("a")).toMatchObject({ taken: false, remaining: 0 });
  expect(two.take("b")).toMatchObject({ taken: true, remaining: 1 });
});

test("the next window begins anew, on the minute", () => {
  const { clock, limit: one } = limit(1);
  clock.ms += 59_999;
  expect(one.take("a")).toMatchObject({ taken: true, resetMs: 1 });
  expect(one.take("a").taken).toBe(false);
  clock.ms += 1;
  expect(one.take("a")).toMatchObject({ taken: true, resetMs: 60_000 });
});

test("what is given back can be taken again, but not in a later window", () => {
  const { clock, limit: one } = limit(1);
  one.take("a");
  one.giveBack("a");
  expect(one.take("a").taken).toBe(true);
  clock.ms += 60_000;
  one.giveBack("a");
  expect(one.take("a").taken).toBe(true);
  expect(one.take("a").taken).toBe(false);
});

test("callers beyond those that are told apart share one count", () => {
  const { limit: two } = limit(2, 3);
  for (const caller of ["a", "b", "c"]) expect(two.take(caller).taken).toBe(true);
  expect(["d", "e", "f"].map((caller) => two.take(caller).taken)).toEqual([true, true, false]);
  expect(two.take("a").taken).toBe(true);
});
