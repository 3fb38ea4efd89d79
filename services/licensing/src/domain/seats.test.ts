import { expect, test } from "@jest/globals";
import { hasRoom, heartbeatSeconds, MAX_SEATS, type SeatPolicy } from "./seats.ts";

test.each([
  [{ used: 0, maximum: 1 }, true],
  [{ used: 1, maximum: 1 }, false],
  [{ used: 2, maximum: 1 }, false],
  [{ used: 0, maximum: 0 }, false],
  [{ used: MAX_SEATS - 1 }, true],
  [{ used: MAX_SEATS }, false],
  [{ used: MAX_SEATS, maximum: MAX_SEATS + 1 }, false],
])("%j has room: %s", (seats, room) => expect(hasRoom(seats)).toBe(room));

test("two heartbeats may be lost before a lease ends", () => {
  const policy = (leaseSeconds?: number) => ({ ...(leaseSeconds && { leaseSeconds }) }) as SeatPolicy;
  expect([undefined, 10, 60, 3_600].map((lease) => heartbeatSeconds(policy(lease)))).toEqual([0, 3, 20, 1_200]);
});
