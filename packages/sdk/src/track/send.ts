import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Connection } from "../connection.ts";
import { LicetError } from "../errors.ts";
import type { Send } from "./delivery.ts";

/** The server's own bound for the method, in milliseconds. */
const TIMEOUT_MS = 5_000;
/**
 * Events that lie ahead of the server's clock wait until it takes them, at most so many milliseconds: all that a wrong time
 * zone can do. Others, such as those of a year that is wrong, would hold up all that is behind them.
 */
const LONGEST_AHEAD_MS = 86_400_000;
/** Until then it is tried at times, in milliseconds: the server's clock may be the wrong one, and be set. */
const LONGEST_PAUSE_MS = 60_000;

/** Sends batches by `TrackUsageBatch`. */
export function sendOver(connection: Connection): Send {
  const method = UsageMeteringService.method.trackUsageBatch;
  return async ({ body }, signal) => {
    try {
      await connection.unary(method, body, { timeoutMs: TIMEOUT_MS, signal, repeat: false });
      return { kind: "ACCEPTED" };
    } catch (error) {
      if (!(error instanceof LicetError)) throw error;
      // All else passes or can be mended from outside, a refused API key too: usage that happened is not thrown away.
      if (error.code !== "INVALID_ARGUMENT") return { kind: "LATER", error, retryAfterMs: error.retryAfterMs ?? 0 };
      // Of what can't be right the server says when it will be only where time mends it.
      const { retryAfterMs } = error;
      if (retryAfterMs === undefined || retryAfterMs > LONGEST_AHEAD_MS) return { kind: "REFUSED", error };
      return { kind: "LATER", error, retryAfterMs: Math.min(retryAfterMs, LONGEST_PAUSE_MS) };
    }
  };
}
