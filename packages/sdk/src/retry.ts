import { setTimeout as delay } from "node:timers/promises";
import { LicetError } from "./errors.ts";

/** How often a call is tried in all. */
const MAX_ATTEMPTS = 4;
/** The first pause is at most this long, in milliseconds; each further one twice as long. */
const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 500;
/** What each call adds to the budget of retries: in the long run at most one call in ten is repeated. */
const TOKENS_PER_CALL = 0.1;
/** The retries that may be saved up: the calls of one connection that the server ends. */
const MAX_TOKENS = 100;
/** What is left of them when the server says that it has too much to do: the savings are for lost connections. */
const MAX_TOKENS_OVERLOADED = 10;

/** Repeats calls that failed with UNAVAILABLE, within a budget. */
export interface Retrier {
  /**
   * Runs `attempt` until it succeeds, fails otherwise than with UNAVAILABLE, or no attempt, budget or time is left; then the
   * last error is thrown.
   *
   * @param deadlineAt the call's deadline in epoch milliseconds: no pause outlasts it.
   */
  run<T>(attempt: () => Promise<T>, deadlineAt: number, signal: AbortSignal | undefined): Promise<T>;
}

/** Creates the retries of one connection: when most calls fail, nearly none is repeated. */
export function createRetrier(random: () => number = Math.random): Retrier {
  let tokens = MAX_TOKENS;
  return {
    async run(attempt, deadlineAt, signal) {
      tokens = Math.min(MAX_TOKENS, tokens + TOKENS_PER_CALL);
      for (let tried = 1; ; tried++) {
        try {
          return await attempt();
        } catch (error) {
          if (!(error instanceof LicetError) || error.code !== "UNAVAILABLE") throw error;
          if (error.reason === "OVERLOADED") tokens = Math.min(tokens, MAX_TOKENS_OVERLOADED);
          const pauseMs = pause(tried, error.retryAfterMs, random());
          if (tried === MAX_ATTEMPTS || tokens < 1 || Date.now() + pauseMs >= deadlineAt) throw error;
          tokens -= 1;
          // An abort only ends the pause: the attempt that follows reports it.
          await delay(pauseMs, undefined, { signal }).catch(() => undefined);
        }
      }
    },
  };
}

/** Full jitter, so that callers who failed together don't come back together; on top of what the server asked for. */
function pause(tried: number, retryAfterMs: number | undefined, random: number): number {
  return (retryAfterMs ?? 0) + random * Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (tried - 1));
}
