import type { Transaction } from "kysely";
import type { DB } from "./schema.ts";

/** A partition as one consumer reads it. */
export interface Place {
  readonly consumer: string;
  readonly topic: string;
  readonly partition: number;
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
