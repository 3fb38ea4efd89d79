/** The most by which quartz and NTP let a clock run wrong. */
const MAX_DRIFT = 500e-6;
/** Clocks that part by more than this, in milliseconds, were set or slept: the time that passed is noted at once. */
export const NOTED_MS = 1_000;

/** A moment by the two clocks of this machine. */
export interface Moment {
  /** Epoch milliseconds: counts while the machine sleeps, but can be set. */
  readonly wallMs: number;
  /** Milliseconds since some start: can't be set, but stands still while the machine sleeps. */
  readonly steadyMs: number;
}

/** What of a clock outlives a restart: its high-water mark. */
export interface ClockMark {
  /** What the clock showed. */
  readonly nowMs: number;
  /** What the machine's wall clock showed. */
  readonly wallMs: number;
  /**
   * The least that it shows after a restart. While the process runs it lies ahead of `nowMs`: a process that was killed and
   * a wall clock that was set back gain nothing by it.
   */
  readonly leastMs: number;
}

/**
 * The time that decisions are made by, in epoch milliseconds: licensing's, where it was told, else the machine's. It
 * never runs slower than the faster of the machine's two clocks, and never back: only licensing itself can put it back.
 */
export interface TrustedClock {
  nowMs(): number;
  /**
   * Notes that licensing's clock showed `toldMs` at some moment since `askedAt`, and tells whether that said more than is
   * known.
   */
  calibrate(askedAt: Moment, toldMs: number): boolean;
  /** How far it may be ahead of licensing's, in milliseconds; Infinity: it was never told. */
  errorMs(): number;
  /**
   * Notes the time that has passed; to be called each second or so, for sleeps that end with a clock set back. Tells whether
   * the machine's clocks have parted since.
   */
  tick(): boolean;
  /** What a restart needs. @param reserveMs until when, from now on, the next mark is written; 0: the process ends. */
  mark(reserveMs: number): ClockMark;
  /** This machine's clocks now. */
  machine(): Moment;
}

/** Milliseconds that have passed between two moments: what the faster of the two clocks says. */
function elapsedMs(from: Moment, to: Moment): number {
  return Math.max(to.wallMs - from.wallMs, to.steadyMs - from.steadyMs, 0);
}

/** Creates the clock. @param restored the last mark of the process before, and whatever else is known to lie in the past. */
export function createTrustedClock(
  machine: () => Moment,
  restored: { readonly mark?: ClockMark | undefined; readonly leastMs?: number } = {},
): TrustedClock {
  const start = machine();
  let anchor = { at: start, nowMs: Math.max(restoredMs(start, restored.mark), restored.leastMs ?? 0) };
  let highestMs = anchor.nowMs;
  let calibration: { readonly at: Moment; readonly errorMs: number } | undefined;

  const nowAt = (at: Moment): number => {
    const shown = anchor.nowMs + elapsedMs(anchor.at, at);
    if (shown >= highestMs) {
      highestMs = shown;
    } else {
      // The wall clock was set back: from here on the steady one counts.
      anchor = { at, nowMs: highestMs };
    }
    return highestMs;
  };
  const errorAt = (at: Moment): number =>
    calibration === undefined
      ? Number.POSITIVE_INFINITY
      : calibration.errorMs + elapsedMs(calibration.at, at) * MAX_DRIFT;

  return {
    nowMs: () => nowAt(machine()),
    calibrate(askedAt, toldMs) {
      const at = machine();
      const errorMs = elapsedMs(askedAt, at);
      if (errorMs > errorAt(at)) return false;
      calibration = { at, errorMs };
      anchor = { at, nowMs: toldMs + errorMs };
      highestMs = anchor.nowMs;
      return true;
    },
    errorMs: () => errorAt(machine()),
    tick() {
      const at = machine();
      const parted = at.wallMs - anchor.at.wallMs - (at.steadyMs - anchor.at.steadyMs);
      const nowMs = nowAt(at);
      if (Math.abs(parted) <= NOTED_MS) return false;
      anchor = { at, nowMs };
      // Which of the two is right can't be known here: so far it may be wrong until it is told again.
      if (calibration !== undefined) calibration = { at, errorMs: errorAt(at) + Math.abs(parted) };
      return true;
    },
    mark(reserveMs) {
      const at = machine();
      const nowMs = nowAt(at);
      return { nowMs, wallMs: at.wallMs, leastMs: nowMs + reserveMs };
    },
    machine,
  };
}

/** What the clock shows at the start: by the wall clock, and not less than what the mark says. */
function restoredMs({ wallMs }: Moment, mark: ClockMark | undefined): number {
  if (mark === undefined) return wallMs;
  return Math.max(mark.leastMs, mark.nowMs + Math.max(0, wallMs - mark.wallMs));
}

/** The clocks of this machine. */
export function machineClocks(): Moment {
  return { wallMs: Date.now(), steadyMs: performance.now() };
}
