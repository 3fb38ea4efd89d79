import type { ServiceError } from "../errors.ts";
import type { Call } from "./call.ts";

/**
 * Hands one message of a stream to the transport; ends the call when it is not taken in time.
 *
 * @param tooSlow makes the error that the call is answered with, given `slowAfterMs`.
 */
export async function* untilTaken<T>(
  call: Call,
  slowAfterMs: number,
  tooSlow: (slowAfterMs: number) => ServiceError,
  message: T,
): AsyncGenerator<T> {
  let taken = false;
  const cut = (): void => {
    if (!taken) call.abort(tooSlow(slowAfterMs));
  };
  // After a standstill of this process its timers come first, and then the news of what was taken long ago.
  const timer = setTimeout(() => setImmediate(cut), slowAfterMs);
  try {
    yield message;
  } finally {
    taken = true;
    clearTimeout(timer);
  }
}
