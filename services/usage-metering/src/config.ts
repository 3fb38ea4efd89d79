import { address, databaseConfig, databaseSettings } from "@licet/mesh/settings";
import type { z } from "zod";

/** What usage metering needs to run. */
export interface Config {
  /** Its database as each of the two serving roles. */
  readonly database: { readonly appUrl: string; readonly systemUrl: string };
  /** Connections of each role at most. */
  readonly maxConnections: number;
}

/** The settings of the process that usage metering is alone in. */
export const settings = databaseSettings.safeExtend({
  LICENSING_ADDRESS: address("Where licensing is, which is asked about API keys."),
});

/** What the settings say about usage metering. */
export function toConfig(set: z.output<typeof settings>): Config {
  return databaseConfig(set, "metering");
}
