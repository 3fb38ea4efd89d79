import { UsageMeteringService } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { Connection } from "../connection.ts";
import { LicetError } from "../errors.ts";
import type { Send } from "./delivery.ts";

/** The server's own bound for the method, in milliseconds. */
const TIMEOUT_MS = 5_000;

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
      if (error.code === "INVALID_ARGUMENT") return { kind: "REFUSED", error };
      return { kind: "LATER", error, retryAfterMs: error.retryAfterMs ?? 0 };
    }
  };
}
