import type { Transaction } from "kysely";
import type { DB } from "./schema.ts";

/** A partition as one consumer reads it. */
export interface Place {
  readonly consumer: string;
  readonly topic: string;
  readonly partition: number;
}

/** Notes the log that a consumer reads for the first time, and tells which one its offsets belong to. */
export async function claimLog(tx: Transaction<DB>, consumer: string, logId: string): Promise<string> {
  await tx
    .insertInto("consumer_log")
    .values({ consumer, log_id: logId })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  const row = await tx
    .selectFrom("consumer_log")
    .select("log_id")
    .where("consumer", "=", consumer)
    .executeTakeFirstOrThrow();
  return row.log_id;
}

/** Makes a consumer that has claimed a log begin anew, at the start of another one. */
export async function changeLog(tx: Transaction<DB>, consumer: string, logId: string): Promise<void> {
  await tx.updateTable("consumer_log").set({ log_id: logId }).where("consumer", "=", consumer).execute();
  await tx.updateTable("consumer_offset").set({ next_offset: 0n }).where("consumer", "=", consumer).execute();
}

/** Where a consumer continues; a partition that it never read starts at 0. */
export async function loadOffset(tx: Transaction<DB>, place: Place): Promise<bigint> {
  await tx
    .insertInto("consumer_offset")
    .values({ ...place, next_offset: 0n })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  const row = await tx
    .selectFrom("consumer_offset")
    .select("next_offset")
    .where("consumer", "=", place.consumer)
    .where("topic", "=", place.topic)
    .where("partition", "=", place.partition)
    .executeTakeFirstOrThrow();
  return row.next_offset;
}

/** How far a consumer has read each partition of a topic; those that it never read are not there. */
export async function listOffsets(tx: Transaction<DB>, consumer: string, topic: string): Promise<Map<number, bigint>> {
  const rows = await tx
    .selectFrom("consumer_offset")
    .select(["partition", "next_offset"])
    .where("consumer", "=", consumer)
    .where("topic", "=", topic)
    .execute();
  return new Map(rows.map(({ partition, next_offset }) => [partition, next_offset]));
}

/**
 * Moves a consumer from one offset to the next and locks its row until the transaction ends. Returns false when it
 * was not at `from`: somebody else counts this partition.
 */
export async function moveOffset(tx: Transaction<DB>, place: Place, from: bigint, to: bigint): Promise<boolean> {
  const result = await tx
    .updateTable("consumer_offset")
    .set({ next_offset: to })
    .where("consumer", "=", place.consumer)
    .where("topic", "=", place.topic)
    .where("partition", "=", place.partition)
    .where("next_offset", "=", from)
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}
