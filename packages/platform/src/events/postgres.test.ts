import { Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import { sql } from "kysely";
import pg from "pg";
import { roles } from "../database/roles.ts";
import { createLogger } from "../logging.ts";
import { type BusHarness, busCases, busConformance } from "../testing/bus-conformance.ts";
import { createTestDatabase, type TestDatabase } from "../testing/database.ts";
import { type FaultProxy, startFaultProxy } from "../testing/proxy.ts";
import { until } from "../testing/until.ts";
import type { Batch, EventBus, TopicSpec } from "./bus.ts";
import { createPostgresBus } from "./postgres.ts";
import { maintain } from "./postgres-maintenance.ts";

const migrations = fileURLToPath(new URL("../../migrations/bus", import.meta.url));
const logger = createLogger({ level: "silent", name: "postgres-bus-test" });

/** Runs statements as the owner of the log's tables. */
async function asOwner(database: TestDatabase<unknown>, statements: string): Promise<void> {
  const client = new pg.Client({ connectionString: database.url(roles.owner) });
  await client.connect();
  try {
    await client.query(statements);
  } finally {
    await client.end();
  }
}

function makeHarness(database: TestDatabase<unknown>): BusHarness {
  const url = new URL(database.url(roles.system));
  const opened = new Map<EventBus, FaultProxy>();
  return {
    async open(topics) {
      const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port) });
      const proxied = new URL(url);
      proxied.host = `127.0.0.1:${proxy.port}`;
      const bus = await createPostgresBus({ url: proxied.href, topics, logger, pollMs: 20 });
      opened.set(bus, proxy);
      return bus;
    },
    crash: (bus) => opened.get(bus)?.cut(),
    setReachable: (bus, reachable) => (reachable ? opened.get(bus)?.restore() : opened.get(bus)?.cut()),
    disturbCommits: (topic) => asOwner(database, disturbance(topic)),
    async close() {
      await Promise.all([...opened.keys()].map((bus) => bus.stop()));
      await Promise.all([...opened.values()].map((proxy) => proxy.stop()));
    },
  };
}

/** A deferred trigger runs inside the commit, after the offsets were taken. */
const disturbance = (topic: TopicSpec): string => `
  CREATE OR REPLACE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_sleep(random() * 0.01);
    IF random() < 0.1 THEN RAISE EXCEPTION 'this commit fails on purpose'; END IF;
    RETURN NULL;
  END $$;
  CREATE CONSTRAINT TRIGGER "${topic.name}" AFTER INSERT ON record DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.topic = '${topic.name}') EXECUTE FUNCTION disturb()`;

/** The planted bug: offsets from a sequence, which hands them out before the commit and without the partition's lock. */
const sequenceCursor = `
  CREATE SEQUENCE record_offset MINVALUE 0;
  GRANT USAGE ON SEQUENCE record_offset TO licet_system;
  CREATE OR REPLACE FUNCTION append_records(
    topics text[], partitions integer[], keys text[], headers jsonb[], payloads bytea[], compacted boolean[]
  ) RETURNS void LANGUAGE sql AS $$
    INSERT INTO record (topic, partition, "offset", key, headers, value, compacted)
    SELECT i.topic, i.partition, nextval('record_offset'), i.key, i.headers, i.payload, i.compacted
      FROM unnest(topics, partitions, keys, headers, payloads, compacted) AS i(topic, partition, key, headers, payload, compacted);
  $$;
  -- The partition's end as a reader would take it from such a log: behind the highest visible record. In the snapshot of the
  -- reader's statement: the bug is not to look twice.
  CREATE FUNCTION sequence_end() RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT coalesce(max("offset") + 1, 0) FROM record $$;
  ALTER TABLE partition RENAME TO partition_row;
  CREATE VIEW partition AS SELECT topic, partition, sequence_end() AS next_offset, heartbeat_at, heartbeat_offset, compacted_to FROM partition_row;
  GRANT SELECT, INSERT ON partition TO licet_system`;

describe("the Postgres log", () => {
  let database: TestDatabase<unknown>;
  beforeAll(async () => {
    database = await createTestDatabase({ name: "bus", migrations });
  });
  afterAll(() => database.drop());
  busConformance("the Postgres log", async () => makeHarness(database));

  const harnesses: BusHarness[] = [];
  afterEach(async () => {
    for (const harness of harnesses.splice(0)) await harness.close();
  });

  async function openTopic(topic: TopicSpec): Promise<EventBus> {
    const harness = makeHarness(database);
    harnesses.push(harness);
    return harness.open([topic]);
  }

  describe("maintenance", () => {
    const db = () => database.databases.system;
    const never = new AbortController().signal;

    async function keys(topic: TopicSpec): Promise<string[]> {
      const { rows } = await sql<{ text: string }>`
        SELECT key || ':' || convert_from(value, 'UTF8') AS text FROM record WHERE topic = ${topic.name} ORDER BY "offset"`.execute(
        db(),
      );
      return rows.map(({ text }) => text);
    }

    test("keeps the last record of each key of a compacted topic, whatever was compacted before", async () => {
      const topic: TopicSpec = { name: "compacted", partitions: 1, compacted: true, retentionMs: 1 };
      const bus = await openTopic(topic);
      const publish = (key: string, text: string) =>
        bus.publish([{ topic: topic.name, key, headers: {}, value: Buffer.from(text) }]);
      for (const [key, text] of [
        ["a", "1"],
        ["b", "1"],
        ["a", "2"],
      ] as const)
        await publish(key, text);
      await maintain(db(), [topic], { signal: never, logger });
      expect(await keys(topic)).toEqual(["b:1", "a:2"]);
      for (const [key, text] of [
        ["b", "2"],
        ["c", "1"],
      ] as const)
        await publish(key, text);
      await maintain(db(), [topic], { signal: never, logger });
      await maintain(db(), [topic], { signal: never, logger });
      expect(await keys(topic)).toEqual(["a:2", "b:2", "c:1"]);
      // A reader passes the gaps, also one at the end of what it may still read.
      const batches: Batch[] = [];
      const handle = async (batch: Batch): Promise<void> => void batches.push(batch);
      const reader = { kind: "all", from: "beginning" } as const;
      await (await bus.subscribe({ topics: [topic.name], reader, handle, maxBatchRecords: 2 })).caughtUp();
      expect(batches.map(({ firstOffset, nextOffset }) => [firstOffset, nextOffset])).toEqual([
        [0n, 4n],
        [4n, 5n],
      ]);
    });

    test("removes expired records of other topics, and readers go on behind them", async () => {
      const topic: TopicSpec = { name: "expiring", partitions: 1, compacted: false, retentionMs: 60_000 };
      const bus = await openTopic(topic);
      const record = (text: string) => ({ topic: topic.name, key: "k", headers: {}, value: Buffer.from(text) });
      await bus.publish(["1", "2", "3"].map(record));
      await asOwner(
        database,
        `UPDATE record SET appended_at = now() - interval '61 s' WHERE topic = 'expiring' AND "offset" < 2`,
      );
      await maintain(db(), [topic], { signal: never, logger });
      expect(await keys(topic)).toEqual(["k:3"]);
      await asOwner(database, "UPDATE record SET appended_at = now() - interval '61 s' WHERE topic = 'expiring'");
      await maintain(db(), [topic], { signal: never, logger });
      expect(await keys(topic)).toEqual([]);
      const texts: string[] = [];
      const subscription = await bus.subscribe({
        topics: [topic.name],
        reader: { kind: "group", group: "g" },
        handle: async ({ records }) => void texts.push(...records.map(({ value }) => Buffer.from(value).toString())),
      });
      await subscription.caughtUp();
      await bus.publish([record("4")]);
      await subscription.caughtUp();
      expect(texts).toEqual(["4"]);
    });

    /** Publishes three records that have expired, and maintains the log with an ear to its warnings. */
    async function expire(bus: EventBus, topic: TopicSpec) {
      const record = (text: string) => ({ topic: topic.name, key: "k", headers: {}, value: Buffer.from(text) });
      await bus.publish(["1", "2", "3"].map(record));
      await asOwner(database, `UPDATE record SET appended_at = now() - interval '61 s' WHERE topic = '${topic.name}'`);
      return async () => {
        const warnings: { topic: string; waiting: unknown }[] = [];
        const destination = new Writable({
          write(chunk, _encoding, done) {
            warnings.push(JSON.parse(String(chunk)));
            done();
          },
        });
        const loud = createLogger({ level: "warn", name: "test", destination });
        await maintain(db(), [topic], { signal: never, logger: loud });
        return warnings.map(({ topic: name, waiting }) => ({ topic: name, waiting }));
      };
    }

    test.each([
      ["the log stores its position", undefined],
      ["it stores its position itself", 0n],
    ])("keeps expired records that a group has not handled, where %s", async (_where, start) => {
      const name = `unread-${start ?? "stored"}`;
      const topic: TopicSpec = { name, partitions: 1, compacted: false, retentionMs: 60_000 };
      const bus = await openTopic(topic);
      let own = start ?? 0n;
      let broken = true;
      const reader = {
        kind: "group",
        group: "late",
        ...(start === undefined ? {} : { loadOffset: async () => own }),
      } as const;
      const subscribe = () =>
        bus.subscribe({
          topics: [name],
          reader,
          maxBatchRecords: 1,
          async handle({ nextOffset }) {
            if (broken && nextOffset === 2n) throw new Error("not now");
            own = nextOffset;
          },
        });
      const stands = async (): Promise<bigint | undefined> => {
        const { rows } = await sql<{ next_offset: bigint }>`
          SELECT next_offset FROM group_offset WHERE group_name = 'late' AND topic = ${name}`.execute(db());
        return rows[0]?.next_offset;
      };
      const idle = await subscribe();
      await until("the group is known", async () => (await stands()) === 0n);
      await idle.stop();
      const maintained = await expire(bus, topic);
      expect(await maintained()).toEqual([{ topic: name, waiting: [{ partition: 0, group: "late", offset: 0 }] }]);
      expect(await keys(topic)).toEqual(["k:1", "k:2", "k:3"]);

      await subscribe();
      await until("the first record is handled", async () => (await stands()) === 1n);
      expect(await maintained()).toEqual([{ topic: name, waiting: [{ partition: 0, group: "late", offset: 1 }] }]);
      expect(await keys(topic)).toEqual(["k:2", "k:3"]);

      broken = false;
      await until("all records are handled", async () => (await stands()) === 3n);
      expect(await maintained()).toEqual([]);
      expect(await keys(topic)).toEqual([]);
    });

    test("a position that a group stores itself is never taken from the log", async () => {
      const topic: TopicSpec = { name: "own-position", partitions: 1, compacted: false, retentionMs: 60_000 };
      const bus = await openTopic(topic);
      await expire(bus, topic);
      await sql`INSERT INTO group_offset VALUES ('own', ${topic.name}, 0, 2)`.execute(db());
      const offsets: bigint[] = [];
      let own = 1n;
      const subscription = await bus.subscribe({
        topics: [topic.name],
        reader: { kind: "group", group: "own", loadOffset: async () => own },
        async handle({ records, nextOffset }) {
          offsets.push(...records.map(({ offset }) => offset));
          own = nextOffset;
        },
      });
      await subscription.caughtUp();
      expect(offsets).toEqual([1n, 2n]);
    });
  });

  test("refuses another number of partitions than the log has", async () => {
    const topic: TopicSpec = { name: "fixed", partitions: 2, compacted: false, retentionMs: 1 };
    await openTopic(topic);
    const other = createPostgresBus({ url: database.url(roles.system), topics: [{ ...topic, partitions: 3 }], logger });
    await expect(other).rejects.toThrow('the topic "fixed" has 2 partitions in the log and 3 in the code');
  });

  test("cuts large batches by their bytes", async () => {
    const bus = await openTopic({ name: "large", partitions: 1, compacted: false, retentionMs: 1 });
    const sizes: number[] = [];
    const large = (bytes: number) => ({ topic: "large", key: "k", headers: {}, value: new Uint8Array(bytes) });
    for (let call = 0; call < 2; call++) await bus.publish(Array.from({ length: 5 }, () => large(1024 * 1024)));
    const handle = async ({ records }: Batch): Promise<void> => void sizes.push(records.length);
    await (await bus.subscribe({ topics: ["large"], reader: { kind: "all", from: "beginning" }, handle })).caughtUp();
    expect(sizes).toEqual([4, 4, 2]);
  });

  test("is durable even where the server's default is not", async () => {
    const { rows } = await database.databases.system.transaction().execute(async (tx) => {
      await sql`SELECT set_config('synchronous_commit', 'off', true)`.execute(tx);
      await sql`SELECT append_records('{}', '{}', '{}', '{}', '{}', '{}')`.execute(tx);
      return sql<{ level: string }>`SELECT current_setting('synchronous_commit') AS level`.execute(tx);
    });
    expect(rows).toEqual([{ level: "on" }]);
  });
});

describe("planted bugs", () => {
  let database: TestDatabase<unknown>;
  beforeAll(async () => {
    database = await createTestDatabase({ name: "bus_sequence", migrations });
    await asOwner(database, sequenceCursor);
  });
  afterAll(() => database.drop());

  test("a sequence as the cursor is caught, as it loses what commits late", async () => {
    const harness = makeHarness(database);
    try {
      await busCases["delivers the records of a key in the order of publishing"](harness);
      const run = busCases["loses nothing to transactions that commit late or fail"](harness);
      await expect(run).rejects.toThrow(/\d+ of 300 acknowledged records were lost/);
    } finally {
      await harness.close();
    }
  });
});
