import { type Kysely, sql } from "kysely";
import { binaryArray } from "../database/binary-array.ts";
import type { BusRecord, OutgoingRecord, Position, TopicSpec } from "./bus.ts";

/** The log's database. Its statements are SQL text: they live from functions and bounds that a builder only obscures. */
export type LogDatabase = Kysely<unknown>;

/** One partition. */
export type Place = Pick<Position, "topic" | "partition">;

/** A record that knows its partition. */
export interface PlacedRecord extends OutgoingRecord {
  readonly partition: number;
  readonly compacted: boolean;
}

/** One row of `partition`: where it ends and the last heartbeat. */
export interface Tail extends Position {
  readonly heartbeat: { readonly issuedAt: Date; readonly offset: bigint } | undefined;
}

/** The records from an offset on, and the offset behind everything that was looked at. */
export interface LogPage {
  readonly records: readonly BusRecord[];
  readonly nextOffset: bigint;
}

/** Most bytes of values in one page, unless its first record alone is larger. */
const pageBytes = 4 * 1024 * 1024;

/** Creates the partitions of a topic that are missing. Refuses a number of partitions other than the existing one. */
export async function ensureTopic(db: LogDatabase, topic: TopicSpec): Promise<void> {
  await sql`
    INSERT INTO partition (topic, partition) SELECT ${topic.name}, generate_series(0, ${topic.partitions}::integer - 1)
     WHERE NOT EXISTS (SELECT FROM partition WHERE topic = ${topic.name})
        ON CONFLICT DO NOTHING`.execute(db);
  const { rows } = await sql<{ partitions: number }>`
    SELECT count(*)::integer AS partitions FROM partition WHERE topic = ${topic.name}`.execute(db);
  const partitions = rows[0]?.partitions ?? 0;
  if (partitions !== topic.partitions) {
    throw new Error(
      `the topic "${topic.name}" has ${partitions} partitions in the log and ${topic.partitions} in the code; ` +
        "the number can't change, because keys would move and lose their order",
    );
  }
}

/** The id that the log got when it was made. */
export async function readLogId(db: LogDatabase): Promise<string> {
  const { rows } = await sql<{ id: string }>`SELECT id FROM log_id`.execute(db);
  if (rows[0] === undefined) throw new Error("the event log has lost its id: the table log_id is empty");
  return rows[0].id;
}

/** Appends records in their order and commits them durably. */
export async function append(db: LogDatabase, records: readonly PlacedRecord[]): Promise<void> {
  const topics = records.map(({ topic }) => topic);
  const partitions = records.map(({ partition }) => partition);
  const keys = records.map(({ key }) => key);
  const headers = records.map((record) => JSON.stringify(record.headers));
  const values = records.map(({ value }) => value);
  const compacted = records.map((record) => record.compacted);
  await sql`SELECT append_records(
    ${binaryArray("text", topics)}, ${partitions}, ${binaryArray("text", keys)}, ${binaryArray("jsonb", headers)},
    ${binaryArray("bytea", values)}, ${compacted})`.execute(db);
}

/** Puts a heartbeat behind the last record of every partition of a topic; it can be lost when the server crashes. */
export async function appendHeartbeat(db: LogDatabase, topic: string, issuedAt: Date): Promise<void> {
  await sql`SELECT append_heartbeat(${topic}, ${issuedAt})`.execute(db);
}

/** Where the partitions of the topics end, and their last heartbeats, ordered by topic and partition. Unknown topics have none. */
export async function readTails(db: LogDatabase, topics: readonly string[]): Promise<Tail[]> {
  const { rows } = await sql<Position & { heartbeat_at: Date | null; heartbeat_offset: bigint | null }>`
    SELECT topic, partition, next_offset AS "offset", heartbeat_at, heartbeat_offset
      FROM partition WHERE topic = ANY(${topics}) ORDER BY topic, partition`.execute(db);
  return rows.map(({ heartbeat_at, heartbeat_offset, ...position }) => ({
    ...position,
    heartbeat:
      heartbeat_at === null || heartbeat_offset === null
        ? undefined
        : { issuedAt: heartbeat_at, offset: heartbeat_offset },
  }));
}

/** Reads at most `limit` records of a partition whose offset is `from` or above. */
export async function readPage(db: LogDatabase, place: Place, from: bigint, limit: number): Promise<LogPage> {
  // One statement, so one snapshot: when it finds less than it may, nothing else lies below next_offset.
  const { rows } = await sql<{
    end: bigint;
    offset: bigint | null;
    key: string;
    headers: Record<string, string>;
    value: Buffer;
    found: bigint;
  }>`
    SELECT p.next_offset AS "end", r."offset", r.key, r.headers, r.value, r.found
      FROM partition p
      LEFT JOIN LATERAL (
        SELECT *, sum(octet_length(value)) OVER (ORDER BY "offset") AS bytes, count(*) OVER () AS found
          FROM (SELECT "offset", key, headers, value FROM record
                 WHERE topic = p.topic AND partition = p.partition AND "offset" >= ${from}
                 ORDER BY "offset" LIMIT ${limit}) AS limited
      ) AS r ON r.bytes <= ${pageBytes} OR r.bytes = octet_length(r.value)
     WHERE p.topic = ${place.topic} AND p.partition = ${place.partition}
     ORDER BY r."offset"`.execute(db);
  const records = rows.flatMap(({ offset, key, headers, value }) =>
    offset === null ? [] : [{ ...place, offset, key, headers, value }],
  );
  const last = records.at(-1);
  const found = Number(rows[0]?.found ?? 0n);
  const cut = found === limit || found > records.length;
  return { records, nextOffset: cut && last !== undefined ? last.offset + 1n : (rows[0]?.end ?? from) };
}

/** Where a group stands whose position the log stores. One that comes for the first time is entered at 0, so that retention waits for it. */
export async function loadGroupOffset(db: LogDatabase, group: string, place: Place): Promise<bigint> {
  const { rows } = await sql<{ next_offset: bigint }>`
    SELECT next_offset FROM group_offset
     WHERE group_name = ${group} AND topic = ${place.topic} AND partition = ${place.partition}`.execute(db);
  if (rows[0] !== undefined) return rows[0].next_offset;
  await sql`
    INSERT INTO group_offset (group_name, topic, partition, next_offset)
    VALUES (${group}, ${place.topic}, ${place.partition}, 0) ON CONFLICT DO NOTHING`.execute(db);
  return 0n;
}

/**
 * Notes where a group stands that stores its position itself. Only {@link removeExpired} reads it: a note that is lost in
 * a crash is behind, and merely keeps records longer, so it isn't worth a flush to disk each batch.
 */
export async function noteGroupOffset(db: LogDatabase, group: string, place: Place, offset: bigint): Promise<void> {
  await sql`
    WITH unflushed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO group_offset (group_name, topic, partition, next_offset)
    SELECT ${group}, ${place.topic}, ${place.partition}::integer, ${offset}::bigint FROM unflushed
        ON CONFLICT (group_name, topic, partition) DO UPDATE SET next_offset = excluded.next_offset`.execute(db);
}

/** Moves a group's position; false when it isn't at `from`, because another member moved it. */
export async function saveGroupOffset(
  db: LogDatabase,
  group: string,
  place: Place,
  from: bigint,
  to: bigint,
): Promise<boolean> {
  const { numAffectedRows } = await sql`
    INSERT INTO group_offset AS o (group_name, topic, partition, next_offset)
    SELECT ${group}, ${place.topic}, ${place.partition}, ${to}
     WHERE ${from} = 0 OR EXISTS (
       SELECT FROM group_offset WHERE group_name = ${group} AND topic = ${place.topic} AND partition = ${place.partition})
        ON CONFLICT (group_name, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
           WHERE o.next_offset = ${from}`.execute(db);
  return numAffectedRows === 1n;
}

/** What {@link removeExpired} did. */
export interface Expiry {
  readonly removed: number;
  /** The group that the oldest expired record is kept for; undefined when none is kept. */
  readonly keptFor: { readonly group: string; readonly offset: bigint } | undefined;
}

/**
 * Removes at most `limit` records that outlived their topic's retention (topics that keep everything), except those that
 * some group which ever read the partition has not handled yet.
 */
export async function removeExpired(
  db: LogDatabase,
  place: Place,
  retentionMs: number,
  limit: number,
): Promise<Expiry> {
  const { rows } = await sql<{ expired: bigint; removed: bigint; group: string | null; offset: bigint | null }>`
    WITH slowest AS MATERIALIZED (
      SELECT group_name, next_offset FROM group_offset
       WHERE topic = ${place.topic} AND partition = ${place.partition} ORDER BY next_offset LIMIT 1),
    expired AS MATERIALIZED (
      SELECT "offset" FROM (
        SELECT "offset", appended_at FROM record
         WHERE topic = ${place.topic} AND partition = ${place.partition} ORDER BY "offset" LIMIT ${limit}) AS oldest
       WHERE appended_at < now() - make_interval(secs => ${retentionMs / 1000})),
    removed AS (
      DELETE FROM record r USING expired e
       WHERE r.topic = ${place.topic} AND r.partition = ${place.partition} AND r."offset" = e."offset"
         AND NOT EXISTS (SELECT FROM slowest WHERE next_offset <= e."offset")
      RETURNING r."offset")
    SELECT (SELECT count(*) FROM expired) AS expired, (SELECT count(*) FROM removed) AS removed,
           (SELECT group_name FROM slowest) AS "group", (SELECT next_offset FROM slowest) AS "offset"`.execute(db);
  const { expired = 0n, removed = 0n, group = null, offset = null } = rows[0] ?? {};
  const kept = expired > removed && group !== null && offset !== null;
  return { removed: Number(removed), keptFor: kept ? { group, offset } : undefined };
}

/**
 * Removes what is superseded by the next `limit` records of a compacted partition that weren't looked at yet.
 *
 * @returns how many of them were looked at.
 */
export async function removeSuperseded(db: LogDatabase, place: Position, limit: number) {
  const { rows } = await sql<{ looked_at: number }>`
    WITH done AS (SELECT compacted_to FROM partition WHERE topic = ${place.topic} AND partition = ${place.partition}),
    newer AS (
      SELECT r."offset", r.key FROM record r, done
       WHERE r.topic = ${place.topic} AND r.partition = ${place.partition} AND r."offset" >= done.compacted_to
       ORDER BY r."offset" LIMIT ${limit}),
    removed AS (
      DELETE FROM record old USING newer
       WHERE old.topic = ${place.topic} AND old.partition = ${place.partition} AND old.compacted
         AND old.key = newer.key AND old."offset" < newer."offset"),
    moved AS (
      UPDATE partition SET compacted_to = 1 + (SELECT max("offset") FROM newer)
       WHERE topic = ${place.topic} AND partition = ${place.partition} AND EXISTS (SELECT FROM newer))
    SELECT count(*)::integer AS looked_at FROM newer`.execute(db);
  return rows[0]?.looked_at ?? 0;
}
