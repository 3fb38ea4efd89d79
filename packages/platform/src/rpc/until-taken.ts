import type { ServiceError } from "../errors.ts";
import { unlessAborted } from "./abort.ts";
import type { Call } from "./call.ts";

/** How long a reader may take, in milliseconds, and what the call is answered with when it takes longer. */
export interface Patience {
  readonly slowAfterMs: number;
  tooSlow(slowAfterMs: number): ServiceError;
}

/**
 * Waits until the transport takes the next message of a stream; ends the call when its reader takes too long.
 *
 * @throws {ServiceError} the reason of the call's signal.
 */
export async function untilTaken(
  call: Pick<Call, "abort" | "signal">,
  { slowAfterMs, tooSlow }: Patience,
  sent: Promise<void>,
): Promise<void> {
  let taken = false;
  const cut = (): void => {
    if (!taken) call.abort(tooSlow(slowAfterMs));
  };
  // After a standstill of this process its timers come first, and then the news of what was taken long ago.
  const timer = setTimeout(() => setImmediate(cut), slowAfterMs);
  try {
    await unlessAborted(call.signal, sent);
  } finally {
    taken = true;
    clearTimeout(timer);
  }
}
