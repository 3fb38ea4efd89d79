/** How many customers are asked about again at once, and in a second: the rest waits for its next question. */
const MAX_AT_ONCE = 8;
const MAX_PER_SECOND = 50;
/** For how long, in milliseconds, nobody is asked about again after licensing did not answer. */
const AWAY_MS = 1_000;
/** By how much of the time an entry may be early or late, so that what came together is not asked for together. */
const JITTER = 0.2;

/** What {@link createBackstop} needs. */
export interface BackstopOptions {
  /** How long, in milliseconds, an entry that neither an event nor licensing has confirmed is relied on without asking. */
  readonly confirmAfterMs: number;
  /** A clock that nobody can set, in milliseconds. */
  readonly steadyMs: () => number;
  /** From 0 to 1, without 1. */
  readonly random: () => number;
}

/**
 * The last defence against an event that was lost, though none should be: what has not been confirmed for long is asked
 * for again behind the back of whoever asks about it, at a bounded rate. It never delays an answer, and never makes one old.
 */
export interface Backstop {
  /** When an entry that is confirmed now is to be confirmed again, in whole seconds of the steady clock. */
  dueAtS(): number;
  /** Whether an entry due then is due now. */
  isDue(dueAtS: number): boolean;
  /** Asks about a key, unless that is under way, or enough others are asked about now. `ask` may reject. */
  confirm(key: string, ask: () => Promise<unknown>): void;
  /** Whether it is asking about this key now. */
  isAsking(key: string): boolean;
}

/** Creates a backstop that has asked about nothing yet. */
export function createBackstop({ confirmAfterMs, steadyMs, random }: BackstopOptions): Backstop {
  const asking = new Set<string>();
  let second = Number.NaN;
  let inSecond = 0;
  let awayUntilMs = Number.NEGATIVE_INFINITY;

  const mayAsk = (nowMs: number): boolean => {
    const current = Math.floor(nowMs / 1_000);
    if (current !== second) inSecond = 0;
    second = current;
    return nowMs >= awayUntilMs && inSecond < MAX_PER_SECOND && asking.size < MAX_AT_ONCE;
  };
  const run = async (key: string, ask: () => Promise<unknown>): Promise<void> => {
    asking.add(key);
    try {
      await ask();
    } catch {
      // Whoever asked licensing has logged why it failed.
      awayUntilMs = steadyMs() + AWAY_MS;
    } finally {
      asking.delete(key);
    }
  };

  return {
    dueAtS: () => Math.ceil((steadyMs() + confirmAfterMs * (1 - JITTER + 2 * JITTER * random())) / 1_000),
    isDue: (dueAtS) => steadyMs() >= dueAtS * 1_000,
    confirm(key, ask) {
      if (asking.has(key) || !mayAsk(steadyMs())) return;
      inSecond++;
      void run(key, ask);
    },
    isAsking: (key) => asking.has(key),
  };
}
