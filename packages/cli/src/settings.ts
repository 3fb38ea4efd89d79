import { type BusSettings, busSettings, databaseConfig, databaseSettings } from "@licet/mesh/settings";
import { parseConfig } from "@licet/platform/config";
import { z } from "zod";

/** The process's environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

const { DATABASE_URL, LICET_DATABASE_PREFIX } = databaseSettings.shape;
const administrator = z.object({ DATABASE_URL, LICET_DATABASE_PREFIX });

/** The administrator's URL and the prefix of the databases. @throws Error when there is none. */
export function administratorOf(env: Environment): { adminUrl: string; prefix: string } {
  const set = parseConfig(administrator, env);
  if (set.DATABASE_URL === undefined) {
    throw new Error("DATABASE_URL is missing: it is the administrator's URL of the Postgres server");
  }
  return { adminUrl: set.DATABASE_URL, prefix: set.LICET_DATABASE_PREFIX };
}

/** Where the events are. @throws Error when nothing says so. */
export function busSettingsOf(env: Environment): BusSettings {
  const set = parseConfig(busSettings, env);
  if ((set.KAFKA_BROKERS ?? set.EVENT_LOG_URL ?? set.DATABASE_URL) === undefined) {
    throw new Error("KAFKA_BROKERS, EVENT_LOG_URL and DATABASE_URL are missing: one of them says where the events are");
  }
  return set;
}

/** A service's database as the two roles that serve. */
export function databaseOf(env: Environment, service: "licensing" | "metering") {
  return databaseConfig(parseConfig(databaseSettings, env), service).database;
}
