import { migrateAll } from "@licet/standalone/databases";
import { administratorOf, type Environment } from "../settings.ts";

/** Creates roles and databases and runs all migrations; returns what ran as a table, a line each. */
export async function migrate(env: Environment): Promise<string[][]> {
  const { adminUrl, prefix } = administratorOf(env);
  const done = await migrateAll(adminUrl, prefix);
  return [
    ["DATABASE", "MIGRATIONS"],
    ...done.flatMap(({ database, ran }) => (ran.length > 0 ? ran : ["none to run"]).map((name) => [database, name])),
  ];
}
