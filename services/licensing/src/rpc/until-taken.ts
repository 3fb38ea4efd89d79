import type { Call } from "@licet/platform/rpc/call";
import { failure } from "../errors.ts";

/** Hands one message to the transport; ends the call when it is not taken in time. */
export async function* untilTaken<T>(call: Call, slowAfterMs: number, message: T): AsyncGenerator<T> {
  let taken = false;
  const cut = (): void => {
    if (taken) return;
    const sentence = `The reader took no message for ${slowAfterMs} ms; resume with the last token received.`;
    call.abort(failure("SUBSCRIBER_TOO_SLOW", sentence, { limit_ms: String(slowAfterMs) }));
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
