import { afterEach, beforeEach, expect, jest, test } from "@jest/globals";
import { createPulse } from "./pulse.ts";

beforeEach(() => void jest.useFakeTimers());
afterEach(() => void jest.useRealTimers());

/** How often each of so many members was called. */
function join(pulse: ReturnType<typeof createPulse>, members: number) {
  const beats = new Array<number>(members).fill(0);
  const leave = beats.map((_, member) =>
    pulse.join(() => {
      beats[member] = (beats[member] ?? 0) + 1;
    }),
  );
  return { beats, leave, total: () => beats.reduce((sum, count) => sum + count, 0) };
}

test("each member is called once in a period, and no more than its share of them at once", () => {
  const pulse = createPulse(1_000);
  const { beats, total } = join(pulse, 1_000);
  for (let ms = 20; ms <= 1_000; ms += 20) {
    const before = total();
    jest.advanceTimersByTime(20);
    expect(total() - before).toBe(20);
  }
  expect(new Set(beats)).toEqual(new Set([1]));
});

test("after a standstill members are caught up with bit by bit, once at most, and are spread as before", () => {
  const pulse = createPulse(1_000);
  const { beats, total } = join(pulse, 10_000);
  const now = performance.now.bind(performance);
  const clock = jest.spyOn(performance, "now").mockImplementation(() => now() + 5_000);
  jest.advanceTimersByTime(20);
  expect(total()).toBe(600);
  jest.advanceTimersByTime(2_000);
  expect(Math.max(...beats)).toBeLessThanOrEqual(4);
  expect(Math.min(...beats)).toBeGreaterThanOrEqual(2);
  const before = total();
  jest.advanceTimersByTime(20);
  expect(total() - before).toBe(200);
  clock.mockRestore();
});

test("few are called on time however long a turn takes", () => {
  const pulse = createPulse(1_000);
  const { beats } = join(pulse, 3);
  const now = performance.now.bind(performance);
  let turns = 0;
  const clock = jest.spyOn(performance, "now").mockImplementation(() => now() + turns * 380);
  for (; turns < 50; turns++) jest.advanceTimersByTime(20);
  clock.mockRestore();
  // 50 turns of 400 ms.
  expect(Math.min(...beats)).toBeGreaterThanOrEqual(19);
});

test("whoever has left is not called, and nothing runs for nobody", () => {
  const pulse = createPulse(100);
  const { beats, leave } = join(pulse, 2);
  leave[0]?.();
  leave[0]?.();
  jest.advanceTimersByTime(100);
  expect(beats).toEqual([0, 1]);
  leave[1]?.();
  expect(jest.getTimerCount()).toBe(0);
  const again = join(pulse, 1);
  jest.advanceTimersByTime(100);
  expect(again.beats).toEqual([1]);
});
