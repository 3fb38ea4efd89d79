import { setInterval } from "node:timers/promises";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Logger } from "@licet/platform/logging";
import type { LicensingClock } from "../cache/licensing-clock.ts";

/** How long licensing may take to tell the time, in milliseconds: as much the clock may then be ahead. */
const TIMEOUT_MS = 1_000;

/**
 * Asks licensing for its database's time, compares the clock with it and returns it: all that was committed before is in
 * what licensing answers from now on.
 */
export async function calibrate(clock: LicensingClock, licensing: Client<typeof LicensingService>): Promise<number> {
  const askedAt = clock.now();
  const { databaseTime } = await licensing.getDatabaseTime({}, { timeoutMs: TIMEOUT_MS });
  if (databaseTime === undefined) throw new Error("licensing told no time");
  const databaseMs = Math.floor(timestampMs(databaseTime));
  clock.calibrate(askedAt, databaseMs);
  return databaseMs;
}

/** Goes on comparing, so often, until the signal aborts. While licensing is away the last comparison holds. */
export async function keepCalibrated(
  clock: LicensingClock,
  options: {
    licensing: Client<typeof LicensingService>;
    calibrationMs: number;
    logger: Logger;
    signal: AbortSignal;
  },
): Promise<void> {
  const { licensing, calibrationMs, logger, signal } = options;
  try {
    for await (const _ of setInterval(calibrationMs, undefined, { signal, ref: false })) {
      await calibrate(clock, licensing).catch((error) =>
        logger.warn({ err: error }, "licensing can't be asked for the time; the clock goes on without it"),
      );
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
