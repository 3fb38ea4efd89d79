import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Kysely, PostgresDialect, sql } from "kysely";
import { type Migration, Migrator } from "kysely/migration";
import { connectionError, isConnectionError } from "./connection.ts";
import { openPool } from "./database.ts";

/** A migration's file name: four digits give the order. */
const FILE_NAME = /^(\d{4})_[a-z0-9_]+\.sql$/;

/**
 * Runs the migrations in `folder` (`NNNN_name.sql`, forward only) that the database does not have yet, all in one
 * transaction. Several migrators at once are fine: one works, the others wait and find nothing left to do.
 *
 * @param options.url the owner role's URL, see `roleUrl`.
 * @returns the names of the migrations that ran.
 * @throws Error naming the folder and file; also when the database has migrations this program does not know.
 */
export async function migrate(options: { readonly url: string; readonly folder: string }): Promise<string[]> {
  // No lock or statement limits: a migrator waits for another one, and building an index takes its time.
  const pool = openPool({ url: options.url, applicationName: "licet migrate", maxConnections: 2 }, {});
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
  try {
    const migrations = await readMigrations(options.folder);
    const { error, results = [] } = await new Migrator({
      db,
      provider: { getMigrations: async () => migrations },
      // The default compares by locale.
      nameComparator: (a, b) => (a < b ? -1 : Number(a > b)),
    }).migrateToLatest();
    if (error !== undefined)
      throw explain(error, options, results.find((result) => result.status === "Error")?.migrationName);
    return results.map((result) => result.migrationName);
  } finally {
    await db.destroy();
  }
}

async function readMigrations(folder: string): Promise<Record<string, Migration>> {
  const migrations: Record<string, Migration> = {};
  const numbers = new Set<string>();
  for (const file of await readdir(folder)) {
    const number = FILE_NAME.exec(file)?.[1];
    if (number === undefined) throw new Error(`${join(folder, file)}: a migration is named NNNN_lower_case.sql`);
    if (numbers.has(number)) throw new Error(`${folder}: two migrations have the number ${number}`);
    numbers.add(number);
    const text = await readFile(join(folder, file), "utf8");
    migrations[file.slice(0, -".sql".length)] = { up: async (db) => void (await sql.raw(text).execute(db)) };
  }
  return migrations;
}

function explain(error: unknown, { url, folder }: { url: string; folder: string }, name: string | undefined): Error {
  if (isConnectionError(error)) return connectionError(url, error);
  const text = error instanceof Error ? error.message : String(error);
  if (name !== undefined)
    return new Error(`migration ${join(folder, `${name}.sql`)} failed: ${text}`, { cause: error });
  if (/corrupted migrations/.test(text)) {
    return new Error(`the database was migrated by a newer or different program than this one: ${text}`, {
      cause: error,
    });
  }
  return new Error(`cannot migrate with ${folder}: ${text}`, { cause: error });
}
