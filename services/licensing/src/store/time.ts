import { type Kysely, sql } from "kysely";
import type { DB } from "./schema.ts";

/** The database's time at this moment, not at the beginning of the transaction. */
export async function databaseTime(db: Kysely<DB>): Promise<Date> {
  const { now } = await db.selectNoFrom(sql<Date>`clock_timestamp()`.as("now")).executeTakeFirstOrThrow();
  return now;
}

/** The database's time when it was sent the statement that this is part of. */
export const statementTime = sql<Date>`statement_timestamp()`;
