/**
 * Usage metering in a process that a test ends by SIGKILL. Argument: its {@link VictimOptions} as JSON. It serves calls that
 * come as messages, and says of each how it ended. Only tests run it.
 */
import { createLogger } from "@licet/platform/logging";
import { createUsageMetering } from "../src/service.ts";
import { openLog } from "./faulty-log.ts";
import { clientOf, startOfTime } from "./harness.ts";
import type { TrackCall, TrackEnd, VictimOptions } from "./victim-process.ts";

const [options = ""] = process.argv.slice(2);
const { config, log, tenant } = JSON.parse(options) as VictimOptions;
const logger = createLogger({ level: "silent", name: "victim" });
const metering = createUsageMetering(config, { bus: await openLog(log), logger, now: () => startOfTime });
const client = clientOf(metering, tenant);
const say = (end: TrackEnd | "ready") => process.send?.(end);

process.on("message", async ({ number, request }: TrackCall) => {
  try {
    await client.trackUsageBatch(request);
    say({ number });
  } catch (error) {
    say({ number, error: String(error) });
  }
});
process.on("disconnect", () => process.exit(1));
await metering.start();
say("ready");
