import { expect, test } from "@jest/globals";
import { until } from "@licet/platform/testing/until";
import fc from "fast-check";
import type { ActivateAnswer, Activation, HeartbeatAnswer, Installation, KeyReason } from "./activation.ts";
import { LicetError } from "./errors.ts";
import { keepSeat, type SeatChange, type SeatClock } from "./seat-keeper.ts";

const installation: Installation = {
  key: "WPR-1",
  product: "rocket",
  instance: { type: "URL", id: "https://a.example" },
};
const LEASE_MS = 600_000;

/** A clock that moves when told. */
function createClock() {
  let now = 0;
  const sleepers: { at: number; wake: () => void }[] = [];
  const clock: SeatClock = {
    steadyNow: () => now,
    random: () => 0.5,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        sleepers.push({ at: now + ms, wake: resolve });
        signal.addEventListener("abort", () => resolve(), { once: true });
      }),
  };
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  return {
    clock,
    async advance(ms: number): Promise<void> {
      const end = now + ms;
      for (;;) {
        await settle();
        sleepers.sort((a, b) => a.at - b.at);
        const next = sleepers[0];
        if (next === undefined || next.at > end) break;
        sleepers.shift();
        now = next.at;
        next.wake();
      }
      now = end;
      await settle();
    },
  };
}

/** Licensing with one seat under a lease: who holds it, and whether it can be reached. */
function createServer(now: () => number, offlineDays = 0) {
  const server = { reachable: true, taken: false, heldUntil: Number.NEGATIVE_INFINITY, calls: [] as string[] };
  const answer = (permitted: boolean, reason: KeyReason): HeartbeatAnswer => ({
    permitted,
    reason,
    message: reason,
    seat: permitted
      ? {
          activationId: "1",
          instanceId: "a",
          displayName: "",
          version: "",
          deploymentId: "",
          lastSeenAtMs: now(),
          leaseExpiresAtMs: server.heldUntil,
        }
      : undefined,
    checkedAtMs: now(),
    heartbeatMs: LEASE_MS / 3,
  });
  const called = (name: string): void => {
    server.calls.push(name);
    if (!server.reachable)
      throw new LicetError({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE", message: "away" });
  };
  const hold = (): HeartbeatAnswer => {
    server.heldUntil = now() + LEASE_MS;
    return answer(true, "PERMITTED");
  };
  const activation: Activation = {
    async checkKey() {
      throw new Error("is not asked");
    },
    async activate() {
      called("activate");
      const got = server.taken ? answer(false, "SEATS_EXHAUSTED") : hold();
      const rest = { license: undefined, seats: undefined, keyExpiresAtMs: undefined, offlineDays, holders: [] };
      return { ...got, ...rest } satisfies ActivateAnswer;
    },
    async heartbeat() {
      called("heartbeat");
      return now() < server.heldUntil ? hold() : answer(false, "NOT_ACTIVATED");
    },
    async deactivate() {
      called("deactivate");
      server.heldUntil = Number.NEGATIVE_INFINITY;
      return { deactivated: true, reason: "PERMITTED", message: "", seats: undefined };
    },
  };
  return { server, activation };
}

test("a seat is kept by heartbeats, taken again when it was lost, and given back at the end", async () => {
  const { clock, advance } = createClock();
  const { server, activation } = createServer(clock.steadyNow);
  const changes: SeatChange[] = [];
  const seat = keepSeat(activation, installation, (change) => void changes.push(change), clock);
  expect(await seat.ready()).toMatchObject({ permitted: true, reason: "PERMITTED" });
  await advance(10 * LEASE_MS);
  expect(seat).toMatchObject({ state: "HELD", permitted: true });
  expect(server.heldUntil).toBeGreaterThan(clock.steadyNow());
  // With the jitter at a third of the lease, or a little before.
  expect(server.calls.length).toBeGreaterThanOrEqual(30);
  expect(server.calls.length).toBeLessThan(40);

  server.heldUntil = Number.NEGATIVE_INFINITY;
  server.taken = true;
  await advance(LEASE_MS);
  expect(seat).toMatchObject({ state: "REFUSED", permitted: false, answer: { reason: "SEATS_EXHAUSTED" } });
  server.taken = false;
  await advance(LEASE_MS);
  expect(seat.state).toBe("HELD");

  expect(await seat.release()).toMatchObject({ deactivated: true });
  await advance(LEASE_MS);
  expect(server.calls.at(-1)).toBe("deactivate");
  expect(changes.map(({ previous, state }) => `${previous} ${state}`)).toEqual([
    "ACTIVATING HELD",
    "HELD REFUSED",
    "REFUSED HELD",
  ]);
});

test.each([
  ["the lease", 0, LEASE_MS],
  ["the product's offline days", 2, 2 * 86_400_000],
])("unreachable, it may go on for %s and not a millisecond longer", async (_name, offlineDays, goodForMs) => {
  const { clock, advance } = createClock();
  const { server, activation } = createServer(clock.steadyNow, offlineDays);
  const seat = keepSeat(activation, installation, undefined, clock);
  await seat.ready();
  const answeredAt = clock.steadyNow();
  server.reachable = false;
  await advance(answeredAt + goodForMs - 1 - clock.steadyNow());
  expect(seat).toMatchObject({ state: "UNREACHABLE", permitted: true });
  await advance(1);
  expect(seat).toMatchObject({ state: "REFUSED", permitted: false });
  // While it is away it is asked seldom.
  expect(server.calls.length).toBeLessThan(20 + (2 * goodForMs) / (LEASE_MS / 3));
  server.reachable = true;
  await advance(LEASE_MS / 3);
  expect(seat.state).toBe("HELD");
  seat.close();
});

test("permits only while its last answer is good, whatever happens", async () => {
  const event = fc.record({
    change: fc.constantFrom("away", "back", "stolen", "freed"),
    afterMs: fc.nat(2 * LEASE_MS),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 15 }), async (events) => {
      const { clock, advance } = createClock();
      const { server, activation } = createServer(clock.steadyNow);
      const seat = keepSeat(activation, installation, undefined, clock);
      for (const { change, afterMs } of events) {
        if (change === "stolen") server.heldUntil = Number.NEGATIVE_INFINITY;
        if (change === "away" || change === "back") server.reachable = change === "back";
        else server.taken = change === "stolen";
        await advance(afterMs);
        const { answer } = seat;
        const good = answer?.permitted === true && clock.steadyNow() < answer.checkedAtMs + LEASE_MS;
        if (seat.permitted) expect(good).toBe(true);
        if (good && server.reachable && !server.taken) expect(seat.permitted).toBe(true);
      }
      server.reachable = true;
      server.taken = false;
      await advance(LEASE_MS);
      expect(seat.state).toBe("HELD");
      seat.close();
    }),
    { numRuns: 100 },
  );
});

test("a release behind a call under way leaves no seat behind", async () => {
  const { clock } = createClock();
  const { server, activation } = createServer(clock.steadyNow);
  const answers: (() => void)[] = [];
  const slow: Activation = {
    ...activation,
    async activate(of) {
      await new Promise<void>((resolve) => void answers.push(resolve));
      return activation.activate(of);
    },
  };
  const seat = keepSeat(slow, installation, undefined, clock);
  await until("it activates", () => answers.length > 0);
  const released = seat.release();
  await expect(seat.ready()).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
  for (const answer of answers) answer();
  await released;
  expect(server.calls).toEqual(["activate", "deactivate"]);
});

test("what can't be right is not asked again", async () => {
  const { clock, advance } = createClock();
  const { activation } = createServer(clock.steadyNow);
  const wrong = new LicetError({ code: "INVALID_ARGUMENT", reason: "INVALID_FIELD", message: "instance.id: …" });
  let calls = 0;
  const refusing: Activation = {
    ...activation,
    async activate() {
      calls += 1;
      throw wrong;
    },
  };
  const seat = keepSeat(refusing, installation, undefined, clock);
  await expect(seat.ready()).rejects.toBe(wrong);
  await advance(LEASE_MS);
  expect(seat.state).toBe("REFUSED");
  expect(calls).toBe(1);
});
