import type { Moment } from "./cache/licensing-clock.ts";

/**
 * This machine's clocks, read once for all that is done without waiting: a question asks four times what time it is, which
 * is a system call on many virtual machines, and a message has a hundred questions. It is read again as soon as the work
 * that was due before it is done, which may take microseconds longer.
 */
export function createTurnClock(): () => Moment {
  let moment: Moment | undefined;
  const forget = (): void => {
    moment = undefined;
  };
  return () => {
    if (moment === undefined) {
      moment = { wallMs: Date.now(), steadyMs: performance.now() };
      queueMicrotask(forget);
    }
    return moment;
  };
}
