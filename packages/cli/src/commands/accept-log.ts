import { openBus } from "@licet/mesh/bus";
import { createLogger } from "@licet/platform/logging";
import { acceptLog as accept } from "@licet/usage-metering/log";
import { busSettingsOf, databaseOf, type Environment } from "../settings.ts";

/** Lets usage metering count on from the start of the log that the environment names, in place of another one. */
export async function acceptLog(env: Environment): Promise<string> {
  const { systemUrl } = databaseOf(env, "metering");
  const bus = await openBus(busSettingsOf(env), "licet-accept-log", createLogger({ level: "warn", name: "licet" }));
  try {
    const id = await bus.id();
    const before = await accept(systemUrl, id);
    return before === id
      ? `Usage is counted from ${id} already.\n`
      : `Usage is counted from the start of\n  ${id}\nin place of\n  ${before}\n`;
  } finally {
    await bus.stop();
  }
}
