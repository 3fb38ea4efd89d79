import { sql, type Transaction } from "kysely";

/** Runs `work` in a savepoint: what it throws undoes what it did and nothing before. */
export async function inSavepoint<DB, T>(tx: Transaction<DB>, work: () => Promise<T>): Promise<T> {
  await sql`SAVEPOINT part`.execute(tx);
  try {
    const result = await work();
    await sql`RELEASE SAVEPOINT part`.execute(tx);
    return result;
  } catch (error) {
    await undo(tx);
    throw error;
  }
}

/** Runs `work` and undoes what it did to the database. */
export async function withoutTrace<DB, T>(tx: Transaction<DB>, work: () => Promise<T>): Promise<T> {
  await sql`SAVEPOINT part`.execute(tx);
  try {
    return await work();
  } finally {
    await undo(tx);
  }
}

async function undo<DB>(tx: Transaction<DB>): Promise<void> {
  await sql`ROLLBACK TO SAVEPOINT part`.execute(tx);
  await sql`RELEASE SAVEPOINT part`.execute(tx);
}
