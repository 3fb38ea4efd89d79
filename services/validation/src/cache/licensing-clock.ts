/** Between two calibrations clocks are taken to keep time; with none for so long, in milliseconds, drift counts. */
const DRIFT_FREE_MS = 120_000;
/** How far a clock may drift: the most by which NTP slews one. */
const MAX_DRIFT = 500e-6;

/** A moment by the two clocks of this machine. */
export interface Moment {
  /** Epoch milliseconds: counts while the machine sleeps, but can be set. */
  readonly wallMs: number;
  /** Milliseconds since some start: can't be set, but stands still while the machine sleeps. */
  readonly steadyMs: number;
}

/** What the clock of licensing's database shows now, as far as can be known here. */
export interface LicensingClock {
  /**
   * The latest that it can show, in epoch milliseconds. Taken for its time, so facts never look younger than they are.
   * Before the first calibration it is this machine's wall clock.
   */
  latestMs(): number;
  /** Notes that it showed `databaseMs` at some moment between `askedAt` and now. */
  calibrate(askedAt: Moment, databaseMs: number): void;
  /** Whether it was calibrated. */
  readonly calibrated: boolean;
  /** This machine's clocks now. */
  now(): Moment;
}

/**
 * Creates a clock that is not calibrated yet. Time that has passed is what the faster of the machine's two clocks says:
 * one that was set back, or one that stood still, must not make facts look young.
 */
export function createLicensingClock(now: () => Moment): LicensingClock {
  let last: { at: Moment; latestMs: number } | undefined;
  return {
    now,
    latestMs() {
      if (last === undefined) return now().wallMs;
      const elapsed = elapsedMs(last.at, now());
      return last.latestMs + elapsed + Math.max(0, elapsed - DRIFT_FREE_MS) * MAX_DRIFT;
    },
    calibrate(askedAt, databaseMs) {
      const at = now();
      // Read on the way there, or on the way back: half the round trip is the error to either side.
      last = { at, latestMs: databaseMs + elapsedMs(askedAt, at) };
    },
    get calibrated() {
      return last !== undefined;
    },
  };
}

function elapsedMs(from: Moment, to: Moment): number {
  return Math.max(to.wallMs - from.wallMs, to.steadyMs - from.steadyMs, 0);
}
