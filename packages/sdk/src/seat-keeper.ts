import { setTimeout as delay } from "node:timers/promises";
import type {
  ActivateAnswer,
  Activation,
  DeactivateAnswer,
  HeartbeatAnswer,
  Installation,
  LicenseAnswer,
} from "./activation.ts";
import { clientClosed, LicetError } from "./errors.ts";

/**
 * Where a kept seat stands. `ACTIVATING`: there was no answer yet. `HELD`: by the last answer the instance holds a seat.
 * `UNREACHABLE`: it does by the last answer that there was, and its time without one is not over. `REFUSED`: the key or the
 * seats don't permit it, or that time is over.
 */
export type SeatState = "ACTIVATING" | "HELD" | "UNREACHABLE" | "REFUSED";

/** A seat that is kept by heartbeats until it is released or closed. */
export interface KeptSeat {
  readonly state: SeatState;
  /** Whether the product may run: `HELD` or `UNREACHABLE`. */
  readonly permitted: boolean;
  /** The last answer; undefined until there is one. */
  readonly answer: ActivateAnswer | HeartbeatAnswer | undefined;
  /** The last answer with the license; heartbeats don't bring one. */
  readonly license: LicenseAnswer["license"];
  /** Resolves with the first answer, whatever it is. @throws {LicetError} when it is closed before. */
  ready(): Promise<ActivateAnswer>;
  /** Ends the heartbeats and gives the seat back. */
  release(): Promise<DeactivateAnswer>;
  /** Ends the heartbeats; the seat is free when its lease is over. */
  close(): void;
}

/** From one state to another, and what led to it. */
export interface SeatChange {
  readonly state: SeatState;
  readonly previous: SeatState;
  /** The answer; undefined where there was none. */
  readonly answer: ActivateAnswer | HeartbeatAnswer | undefined;
  /** Why there was none. */
  readonly error: LicetError | undefined;
}

/** Time and chance, for tests to replace. */
export interface SeatClock {
  /** Milliseconds by a clock that nobody sets. */
  readonly steadyNow: () => number;
  readonly random: () => number;
  /** Waits without keeping the process alive; an abort ends the wait. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

const DAY_MS = 86_400_000;
/** Before the first answer nothing is known about the lease: as if it were the shortest that there is. */
const FIRST_HEARTBEAT_MS = 10_000 / 3;
/** A refusal may be mended at any time; a key may be asked about once a minute. */
const ASK_AGAIN_MS = 300_000;
/** Pauses after calls without an answer: random up to a bound that doubles from this to the interval of the heartbeats. */
const FIRST_PAUSE_MS = 1_000;
/** Heartbeats come up to this share of their interval sooner, so that instances don't come all at once. */
const JITTER = 0.2;

const realClock: SeatClock = {
  steadyNow: () => performance.now(),
  random: Math.random,
  sleep: (ms, signal) => delay(ms, undefined, { signal, ref: false }).catch(() => undefined),
};

/**
 * Activates an instance and keeps its seat: a heartbeat at a third of the lease, or once a day where there is none, another
 * activation where the seat was lost. While Licet can't be reached the product may go on for its lease or the product's
 * `offline_days`, whichever is longer, counted from the last answer by a clock that nobody sets.
 *
 * @param onChange told about each change of the state; what it throws is an uncaught exception
 */
export function keepSeat(
  activation: Activation,
  installation: Installation,
  onChange: (change: SeatChange) => void = () => undefined,
  clock: SeatClock = realClock,
): KeptSeat {
  const ending = new AbortController();
  let state: SeatState = "ACTIVATING";
  let answer: ActivateAnswer | HeartbeatAnswer | undefined;
  let activated: ActivateAnswer | undefined;
  let goodUntil = Number.NEGATIVE_INFINITY;
  let [resolveFirst, rejectFirst]: [(first: ActivateAnswer) => void, (error: Error) => void] = [() => {}, () => {}];
  const first = new Promise<ActivateAnswer>((resolve, reject) => {
    [resolveFirst, rejectFirst] = [resolve, reject];
  });
  // Whoever does not ask for it is told by the state.
  first.catch(() => undefined);

  const enter = (next: SeatState, error?: LicetError): void => {
    const previous = state;
    if (next === previous) return;
    state = next;
    const change = { state: next, previous, answer: error === undefined ? answer : undefined, error };
    queueMicrotask(() => onChange(change));
  };

  /** Notes an answer, and how long it is good for without another one. */
  const note = (got: ActivateAnswer | HeartbeatAnswer): void => {
    answer = got;
    const leaseMs = got.seat?.leaseExpiresAtMs === undefined ? 0 : got.seat.leaseExpiresAtMs - got.checkedAtMs;
    const offlineMs = (activated?.offlineDays ?? 0) * DAY_MS;
    goodUntil = got.permitted ? clock.steadyNow() + Math.max(leaseMs, offlineMs) : Number.NEGATIVE_INFINITY;
  };

  /** Asks once; a seat that was lost is taken again at once. */
  async function ask(): Promise<void> {
    if (answer?.permitted === true) note(await activation.heartbeat(installation));
    if (answer?.permitted === true || ending.signal.aborted) return;
    activated = await activation.activate(installation);
    note(activated);
    resolveFirst(activated);
  }

  /** How long to wait behind an answer, or behind so many calls in a row without one. */
  function pauseMs(failures: number, error: LicetError | undefined): number {
    const heartbeatMs = answer?.heartbeatMs ?? FIRST_HEARTBEAT_MS;
    const intervalMs = answer?.permitted === false ? Math.min(heartbeatMs, ASK_AGAIN_MS) : heartbeatMs;
    if (failures === 0) return intervalMs * (1 - JITTER * clock.random());
    return (error?.retryAfterMs ?? 0) + clock.random() * Math.min(intervalMs, FIRST_PAUSE_MS * 2 ** (failures - 1));
  }

  async function run(): Promise<void> {
    for (let failures = 0; !ending.signal.aborted; ) {
      const error = await attempt(ask());
      if (ending.signal.aborted) return;
      failures = error === undefined ? 0 : failures + 1;
      if (error === undefined) enter(answer?.permitted ? "HELD" : "REFUSED");
      else if (error.code === "INVALID_ARGUMENT") {
        // The same would be answered each time.
        enter("REFUSED", error);
        return rejectFirst(error);
      } else if (state !== "ACTIVATING") enter(isGood() ? "UNREACHABLE" : "REFUSED", error);
      await clock.sleep(pauseMs(failures, error), ending.signal);
    }
  }

  const isGood = (): boolean => clock.steadyNow() < goodUntil;
  const running = run();
  const stop = (): void => {
    ending.abort();
    rejectFirst(clientClosed());
  };
  return {
    get state() {
      // Time alone ends it, also between two calls.
      return state === "UNREACHABLE" && !isGood() ? "REFUSED" : state;
    },
    get permitted() {
      return this.state === "HELD" || this.state === "UNREACHABLE";
    },
    get answer() {
      return answer;
    },
    get license() {
      return activated?.license;
    },
    ready: () => first,
    async release() {
      stop();
      // A call under way could take the seat again behind its release.
      await running;
      return activation.deactivate(installation);
    },
    close: stop,
  };
}

/** The error that a call ended with; undefined: it did not. */
async function attempt(call: Promise<void>): Promise<LicetError | undefined> {
  try {
    await call;
    return undefined;
  } catch (error) {
    if (error instanceof LicetError) return error;
    throw error;
  }
}
