import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { invalidArgument } from "../errors.ts";
import { createBell } from "./bell.ts";
import type { Delivery, Send } from "./delivery.ts";
import { createIntake } from "./intake.ts";
import { type LaneListener, runOverSpool, runStraight } from "./lanes.ts";
import type { SpoolOptions } from "./spool.ts";
import { toPending, type UsageEvent } from "./usage-event.ts";

/** How usage is tracked. */
export interface TrackOptions {
  /** Which system sends the events, at most 255 characters: ids are unique inside it. `sdk` when absent. */
  readonly source?: string;
  /** How many events may wait in memory, 1 to 1,048,576, rounded up to a power of two; 65,536 when absent. */
  readonly capacity?: number;
  /** How long an event waits for others to go with it, in milliseconds, 0 to 60,000; 100 when absent. */
  readonly flushIntervalMs?: number;
  /** Keeps events on disk until the server has them; without it what waits ends with the process. */
  readonly spool?: SpoolOptions;
  /** For how many milliseconds `close` tries to deliver what waits, 0 to 600,000; 5,000 when absent. */
  readonly closeTimeoutMs?: number;
  /** Told what goes wrong with tracking; what it throws is an uncaught exception. */
  readonly onProblem?: (problem: TrackProblem) => void;
}

/** Something that went wrong with tracking. */
export interface TrackProblem {
  /**
   * `RETRYING`: events can't be sent now, or not be kept on disk; they wait, and it is tried again. `REFUSED`: the server
   * will never take this one event. `DAMAGED`: the disk has lost events; `lost` is 0 where how many can't be told.
   * `UNDELIVERED`: `close` had to give up, and there is no spool that keeps them.
   */
  readonly kind: "RETRYING" | "REFUSED" | "DAMAGED" | "UNDELIVERED";
  /** How many events are lost by it. */
  readonly lost: number;
  readonly error: Error;
}

/** What became of the events so far. */
export interface TrackCounts {
  /** Found on disk from earlier runs. */
  readonly inherited: number;
  /** Taken by `track`. */
  readonly tracked: number;
  /** Turned away by `track`: as many waited as may, or it was closed. */
  readonly turnedAway: number;
  /** Acknowledged by the server as durable. */
  readonly delivered: number;
  /** Refused by the server for good. */
  readonly refused: number;
  /** Lost by the disk, or by `close` without a spool. */
  readonly lost: number;
  /** Waiting now, in memory and on disk. */
  readonly waiting: number;
  /** Attempts that failed and were or will be repeated. */
  readonly retries: number;
}

/** Sends usage events in the background. */
export interface Tracker {
  /**
   * Takes an event; it is sent in the background, and sent again with the same id until the server has it.
   *
   * @returns whether it was taken. False: as many wait as may, or it is closed; nothing was kept.
   * @throws {LicetError} INVALID_ARGUMENT `INVALID_FIELD` for an event that the server would refuse.
   */
  track(event: UsageEvent): boolean;
  /** Resolves with true once the server has all that was tracked before, or with false after `timeoutMs`. */
  flush(timeoutMs: number): Promise<boolean>;
  /** What became of the events so far. */
  counts(): TrackCounts;
  /** Takes no more, delivers what waits within `closeTimeoutMs`, and ends. Can be called twice. */
  close(): Promise<void>;
}

/** Time and chance, for tests to replace. */
export interface TrackerClock {
  readonly now: () => number;
  readonly random: () => number;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

const DEFAULTS = { source: "sdk", capacity: 65_536, flushIntervalMs: 100, closeTimeoutMs: 5_000 };
const RANGES = { capacity: [1, 1_048_576], flushIntervalMs: [0, 60_000], closeTimeoutMs: [0, 600_000] } as const;
const MAX_SOURCE_LENGTH = 255;

const realClock: TrackerClock = {
  now: Date.now,
  random: Math.random,
  sleep: (ms, signal) => delay(ms, undefined, { signal }).catch(() => undefined),
};

/**
 * Creates a tracker, which runs at once.
 *
 * @throws {LicetError} INVALID_ARGUMENT `INVALID_FIELD` for an option out of its range.
 */
export function createTracker(send: Send, options: TrackOptions = {}, clock: TrackerClock = realClock): Tracker {
  const settings = { ...DEFAULTS, ...options };
  checkSettings(settings);
  const intake = createIntake({ ...settings, run: randomBytes(15).toString("base64url") });
  const giveUp = new AbortController();
  const settled = createBell();
  const counts: Counts = {
    inherited: undefined,
    tracked: 0,
    turnedAway: 0,
    delivered: 0,
    refused: 0,
    lost: 0,
    retries: 0,
  };
  const { listener, onRefused } = listen(counts, settled.ring, settings.onProblem);
  const { random, sleep } = clock;
  const delivery: Delivery = { send, signal: giveUp.signal, random, sleep, onRetry: listener.onRetry, onRefused };
  const parts = { intake, delivery, listener };
  const { spool } = settings;
  const running = spool === undefined ? runStraight(parts) : runOverSpool(spool, parts);
  let closed = false;
  return {
    track(event) {
      const pending = toPending(event, counts.tracked + 1, clock.now());
      if (closed || !intake.push(pending)) {
        counts.turnedAway += 1;
        return false;
      }
      counts.tracked += 1;
      return true;
    },
    async flush(timeoutMs) {
      const until = performance.now() + timeoutMs;
      const { tracked } = counts;
      // What earlier runs left goes first, and is not known before the spool is open.
      const isDone = () =>
        counts.delivered + counts.refused + counts.lost >= (counts.inherited ?? Number.POSITIVE_INFINITY) + tracked;
      const calm = intake.hurry();
      try {
        while (!isDone() && performance.now() < until) await settled.wait(until - performance.now());
        return isDone();
      } finally {
        calm();
      }
    },
    counts: () => ({ ...counts, inherited: counts.inherited ?? 0, waiting: waiting(counts) }),
    async close() {
      closed = true;
      intake.close();
      const timer = setTimeout(() => giveUp.abort(), settings.closeTimeoutMs);
      await running.finally(() => clearTimeout(timer));
    },
  };
}

type Counts = { -readonly [Name in Exclude<keyof TrackCounts, "waiting" | "inherited">]: number } & {
  /** Undefined until the spool is open. */
  inherited: number | undefined;
};

function waiting({ inherited = 0, tracked, delivered, refused, lost }: Counts): number {
  return inherited + tracked - delivered - refused - lost;
}

/** Counts what lane and delivery tell, and tells the user what is a problem. */
function listen(
  counts: Counts,
  ring: () => void,
  onProblem: TrackOptions["onProblem"] = () => undefined,
): { listener: LaneListener; onRefused: (error: Error) => void } {
  // Outside of the lane, which must not end by what the listener throws.
  const tell = (kind: TrackProblem["kind"], lost: number, error: Error): void => {
    queueMicrotask(() => onProblem({ kind, lost, error }));
  };
  /** Refused since the last events were settled, and among those that will be. */
  let refused = 0;
  return {
    onRefused(error) {
      refused += 1;
      tell("REFUSED", 1, error);
    },
    listener: {
      onInherited(events) {
        counts.inherited = events;
        ring();
      },
      onSettled(events) {
        counts.delivered += events - refused;
        counts.refused += refused;
        refused = 0;
        ring();
      },
      onRetry(error) {
        counts.retries += 1;
        tell("RETRYING", 0, error);
      },
      onLost(kind, events, error) {
        counts.lost += events;
        tell(kind, events, error);
        ring();
      },
    },
  };
}

function checkSettings(settings: typeof DEFAULTS): void {
  const { source } = settings;
  if (typeof source !== "string" || [...source].length > MAX_SOURCE_LENGTH) {
    throw invalidArgument("track.source", `must be a text of at most ${MAX_SOURCE_LENGTH} characters`);
  }
  for (const [name, [min, max]] of Object.entries(RANGES) as [keyof typeof RANGES, readonly [number, number]][]) {
    const value = settings[name];
    if (!Number.isInteger(value) || value < min || value > max) {
      throw invalidArgument(`track.${name}`, `must be a whole number from ${min} to ${max}; it is ${value}`);
    }
  }
}
