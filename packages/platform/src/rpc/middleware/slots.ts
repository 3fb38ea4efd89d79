import { platformError } from "../../errors.ts";
import type { Middleware } from "../call.ts";

/** The step that counts, and what it knows. */
export type Slots = Middleware & {
  /** Whether the next call from outside would be refused. */
  full(): boolean;
};

/** How long a refused caller is asked to wait, in milliseconds. */
const RETRY_AFTER_MS = 250;

/**
 * Runs at most `max` handlers at once and refuses the next call immediately: a
 * queue would only make answers late that nobody waits for any more. A slot is
 * free again when the handler itself has settled, not when the call was
 * answered or given up, because an abandoned handler still takes up the
 * process (rapid cancels would otherwise run any number of them).
 *
 * A call from within the process needs no slot: it is made by a handler that
 * holds one, or by one of the process's few workers. If it did, the outer calls
 * could take all slots and then be refused the calls that they need to finish.
 * But once its caller has given up waiting, its handler is left behind with
 * nobody's slot, and takes one until it has settled.
 */
export function slots(max: number): Slots {
  let taken = 0;
  const free = () => {
    taken -= 1;
  };
  const step: Middleware = async (call, next) => {
    const inner = call.transport === "local";
    if (!inner) {
      if (taken >= max) {
        throw platformError("OVERLOADED", "all slots are taken; try again", { retryAfterMs: RETRY_AFTER_MS });
      }
      taken += 1;
    }
    try {
      await next();
    } finally {
      const { abandoned } = call;
      if (abandoned !== undefined) {
        if (inner) taken += 1;
        abandoned.then(free, free);
      } else if (!inner) free();
    }
  };
  return Object.assign(step, { full: () => taken >= max });
}
