import { platformError, type ServiceError } from "../../errors.ts";
import type { Middleware, ServerCall } from "../call.ts";

/** With less time left than this, in milliseconds, work is not begun: its answer would come too late. */
export const MIN_LEFT_MS = 10;
/** What a caller of any unary method may ask for at least, in milliseconds. */
const PATIENT_MS = 5_000;
/** The longest timer that JavaScript has, in milliseconds. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Answers as soon as the call's time is up or nobody waits any more, whatever
 * the handler does: its signal is aborted and its promise left behind in
 * `call.abandoned`. Unary methods always have a deadline; a stream's is its
 * maximum age and may be unlimited.
 */
export function deadline(now: () => number): Middleware {
  return (call, next) => {
    const leftMs = narrow(call, now());
    if (leftMs < MIN_LEFT_MS) return Promise.reject(exceeded(`less than ${MIN_LEFT_MS} ms were left to answer`));
    return new Promise<void>((resolve, reject) => {
      const timer =
        leftMs <= MAX_TIMER_MS
          ? setTimeout(() => call.abort(exceeded("the call's deadline passed")), leftMs)
          : undefined;
      const work = next();
      const giveUp = () => {
        clearTimeout(timer);
        call.abandoned = work;
        reject(call.signal.reason);
      };
      const settled = () => {
        clearTimeout(timer);
        call.signal.removeEventListener("abort", giveUp);
        resolve(work);
      };
      if (call.signal.aborted) giveUp();
      else call.signal.addEventListener("abort", giveUp, { once: true });
      work.then(settled, settled);
    });
  };
}

/**
 * Sets the call's deadline and returns the milliseconds left. Unary: the caller's where there is one, up to what a patient
 * caller may have, otherwise the method's. A stream's: the earlier of both.
 */
function narrow(call: ServerCall, nowMs: number): number {
  const { deadlineMs } = call.policy;
  const own = deadlineMs === 0 ? Number.POSITIVE_INFINITY : nowMs + deadlineMs;
  const most = call.method.methodKind === "unary" ? Math.max(own, nowMs + PATIENT_MS) : own;
  const at = call.deadlineAt === undefined ? own : Math.min(call.deadlineAt, most);
  if (Number.isFinite(at)) call.deadlineAt = at;
  return at - nowMs;
}

function exceeded(message: string): ServiceError {
  return platformError("DEADLINE_EXCEEDED", message);
}
