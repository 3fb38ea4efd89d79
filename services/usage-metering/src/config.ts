import { address, databaseConfig, databaseSettings } from "@licet/mesh/settings";
import { z } from "zod";

/** What usage metering needs to run. */
export interface Config {
  /** Its database as each of the two serving roles. */
  readonly database: { readonly appUrl: string; readonly systemUrl: string };
  /** Connections of each role at most. */
  readonly maxConnections: number;
  /** Keeps events in the database while the bus is down, so many at most; absent: they are refused. */
  readonly spool?: { readonly maxEvents: number };
}

/** The settings of the process that usage metering is alone in. */
export const settings = databaseSettings.safeExtend({
  LICENSING_ADDRESS: address("Where licensing is, which is asked about API keys."),
  USAGE_WHEN_BUS_DOWN: z.enum(["refuse", "spool"], "is neither refuse nor spool").default("refuse").meta({
    title: "What becomes of usage while the event log can't be reached: it is refused, or kept in the database.",
    description: "refuse or spool",
  }),
  USAGE_SPOOL_MAX_EVENTS: z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1, "is less than 1").max(100_000_000, "is too large"))
    .default(1_000_000)
    .meta({
      title: "With USAGE_WHEN_BUS_DOWN=spool: events kept at most, about 1 KB each; more are refused.",
      description: "a whole number from 1 to 100000000",
    }),
});

/** What the settings say about usage metering. */
export function toConfig(set: z.output<typeof settings>): Config {
  const database = databaseConfig(set, "metering");
  if (set.USAGE_WHEN_BUS_DOWN === "refuse") return database;
  return { ...database, spool: { maxEvents: set.USAGE_SPOOL_MAX_EVENTS } };
}
