import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { sql, type Transaction } from "kysely";
import { asSystem, inTenant, openDatabase } from "../database/database.ts";
import { roles } from "../database/roles.ts";
import { createLogger } from "../logging.ts";
import type { TestDatabase } from "../testing/database.ts";
import {
  checkHistory,
  createHistoryDatabase,
  type HistoryEntry,
  type HistoryTables,
  HistoryWriters,
  historyTenant,
} from "../testing/history.ts";
import { startFaultProxy } from "../testing/proxy.ts";
import { until } from "../testing/until.ts";
import { append, createRelay, type Relay, replay } from "./outbox.ts";
import { type PageOptions, type PublishedPage, readPublished, readTail } from "./published.ts";
import { createPublishedTail } from "./published-tail.ts";

const logger = createLogger({ level: "silent", name: "published-test" });
const types = ["test.happened.v1"];
let database: TestDatabase<HistoryTables>;
let writers: HistoryWriters;
const relays: Relay[] = [];

beforeEach(async () => {
  database = await createHistoryDatabase();
  writers = new HistoryWriters(database);
});
afterEach(async () => {
  await Promise.all(relays.splice(0).map((relay) => relay.stop()));
  await database.drop();
});

/** @param failing how often the answer of the bus is lost, so that the relay publishes again. */
function startRelay(failing = 0): Relay {
  const publish = async (): Promise<void> => {
    if (Math.random() < failing) throw new Error("the relay died here");
  };
  const bus = { publish, heartbeat: async () => undefined };
  const toRecords = () => [{ topic: "history", key: "k", headers: {}, value: Buffer.from("x") }];
  const url = database.url(roles.system);
  const relay = createRelay({ url, bus, toRecords, heartbeatTopics: [], logger, pollMs: 5 });
  relay.start();
  relays.push(relay);
  return relay;
}

const asTenant = <T>(work: (tx: Transaction<HistoryTables>) => Promise<T>) =>
  inTenant(database.databases, historyTenant, work, { readOnly: true });

const read = (options: Omit<PageOptions, "types"> & { types?: readonly string[] }): Promise<PublishedPage> =>
  asTenant((tx) => readPublished(tx, historyTenant, { types, ...options }));

const toEntry = ({ stream, version }: { stream: string; version: bigint }): HistoryEntry => ({
  stream,
  version: Number(version),
});

/** Reads along until it was told to end and has reached what was the tail then. */
function readAlong(): { entries: HistoryEntry[]; positions: bigint[]; end(): Promise<void> } {
  const tail = createPublishedTail({ db: database.databases.system, logger, pollMs: 5 });
  const follower = tail.follow(historyTenant);
  const entries: HistoryEntry[] = [];
  const positions: bigint[] = [];
  let ending = false;
  const running = (async () => {
    for (let position = 0n; ; ) {
      const last = ending;
      const seen = await follower.next(position, AbortSignal.timeout(20));
      const upTo = last ? (await asTenant((tx) => readTail(tx, historyTenant))).last : (seen?.last ?? 0n);
      while (position < upTo) {
        const page = await read({ after: position, upTo });
        entries.push(...page.events.map(toEntry));
        positions.push(...page.events.map((event) => event.position));
        position = page.next;
      }
      if (last) return;
    }
  })();
  return {
    entries,
    positions,
    async end() {
      ending = true;
      await running;
      follower.close();
      await tail.stop();
    },
  };
}

/** Writes one event of a stream, at once, and returns its id. */
const write = (stream: string, more: { version?: bigint; type?: string; bytes?: number } = {}) =>
  inTenant(database.databases, historyTenant, async (tx) => {
    const { version = 1n, type = "test.happened.v1", bytes = 1 } = more;
    const eventId = randomUUID();
    const payload = Buffer.alloc(bytes);
    await append(tx, { eventId, tenantId: historyTenant, stream, version, type, payload, actor: "test" });
    const { rows } = await sql<{ id: bigint }>`SELECT id FROM event WHERE event_id = ${eventId}`.execute(tx);
    return rows[0]?.id ?? 0n;
  });

describe("a reader of published events", () => {
  test("sees each committed event once and in order, whatever commits late, rolls back or is published twice", async () => {
    startRelay(0.1);
    const relay = startRelay(0.1);
    const reader = readAlong();
    await writers.run(1_000);
    await relay.drain();
    await reader.end();
    expect(checkHistory(reader.entries, writers.committed)).toEqual({ duplicates: 0 });
    expect(reader.positions).toEqual(reader.positions.map((_, index) => BigInt(index + 1)));
    expect(reader.positions.length).toBeGreaterThan(500);
  });

  test("the check catches one that goes by ids", async () => {
    const entries: HistoryEntry[] = [];
    let lastId = 0n;
    let running = true;
    const reading = (async () => {
      for (let last = false; !last; ) {
        last = !running;
        const events = await asTenant((tx) =>
          tx.selectFrom("event").select(["id", "stream", "version"]).where("id", ">", lastId).orderBy("id").execute(),
        );
        entries.push(...events.map(toEntry));
        lastId = events.at(-1)?.id ?? lastId;
      }
    })();
    await writers.run(1_000);
    running = false;
    await reading;
    expect(() => checkHistory(entries, writers.committed)).toThrow(/version|versions/);
  });

  /** Two relays, as when one was thought dead, delete a mark each, and the one that began first commits last. */
  async function overlapping(): Promise<HistoryEntry[]> {
    const [first, second] = [await write("a"), await write("b")];
    const unmark = (tx: Transaction<HistoryTables>, id: bigint) =>
      tx.deleteFrom("outbox_pending").where("event_id", "=", id).execute();
    const entries: HistoryEntry[] = [];
    let position = 0n;
    const readOn = async (): Promise<void> => {
      const { rows } = await asTenant((tx) =>
        sql<{ last: bigint }>`
        SELECT coalesce(max(position), 0) AS last FROM event_position`.execute(tx),
      );
      const page = await read({ after: position, upTo: rows[0]?.last ?? 0n });
      entries.push(...page.events.map(toEntry));
      position = page.next;
    };
    let committed = false;
    const { later } = await asSystem(database.databases, async (tx) => {
      await unmark(tx, first);
      const done = asSystem(database.databases, async (other) => {
        // It may wait as long as a loaded machine needs to look.
        await sql`SET LOCAL lock_timeout = 0`.execute(other);
        await unmark(other, second);
      }).then(() => {
        committed = true;
      });
      await until("the second has committed or waits", async () => committed || (await waitsForLock()));
      await readOn();
      return { later: done };
    });
    await later;
    await readOn();
    return entries;
  }

  async function waitsForLock(): Promise<boolean> {
    return database.asSuperuser(async (client) => {
      const waiting = "SELECT FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
      return ((await client.query(waiting, [database.name])).rowCount ?? 0) > 0;
    });
  }

  test("passes over nothing when two relays overlap", async () => {
    expect((await overlapping()).map(({ stream }) => stream)).toEqual(["a", "b"]);
  });

  test("would, if positions came from a sequence", async () => {
    await database.asSuperuser(async (client) => {
      await client.query(`
        CREATE SEQUENCE planted; GRANT USAGE ON SEQUENCE planted TO licet_system;
        CREATE OR REPLACE FUNCTION give_event_positions() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO event_position SELECT '${historyTenant}', nextval('planted'), event_id FROM published;
          RETURN NULL;
        END $$`);
    });
    expect((await overlapping()).map(({ stream }) => stream)).toEqual(["b"]);
  });

  test("finds replayed events where they were", async () => {
    const relay = startRelay();
    await writers.run(100, 2);
    await relay.drain();
    const places = () =>
      asTenant((tx) => tx.selectFrom("event_position").select(["event_id", "position"]).orderBy("position").execute());
    const before = await places();
    expect(await replay(database.url(roles.system), { id: 1n })).toMatchObject({ events: BigInt(before.length) });
    await write("behind the replay");
    await relay.drain();
    const after = await places();
    expect(after.slice(0, -1)).toEqual(before);
    expect(after).toHaveLength(before.length + 1);
  });

  test("another tenant has positions of its own and sees none of these", async () => {
    const relay = startRelay();
    await write("a");
    await inTenant(database.databases, "other", (tx) =>
      append(tx, {
        eventId: randomUUID(),
        tenantId: "other",
        stream: "a",
        version: 1n,
        type: "test.happened.v1",
        payload: Buffer.from("theirs"),
        actor: "test",
      }),
    );
    await relay.drain();
    const theirs = await inTenant(database.databases, "other", async (tx) => ({
      tail: await readTail(tx, "other"),
      own: await readPublished(tx, "other", { after: 0n, upTo: 10n, types }),
      foreign: await readPublished(tx, historyTenant, { after: 0n, upTo: 10n, types }),
    }));
    expect(theirs.tail.last).toBe(1n);
    expect(theirs.own.events).toMatchObject([{ tenantId: "other", position: 1n }]);
    expect(theirs.foreign.events).toEqual([]);
  });
});

describe("a page", () => {
  test("ends at its bound of bytes, and has an event larger than that alone", async () => {
    const kibibyte = 1024;
    const sizes = [600, 600, 2_000, 300, 300, 300, 300].map((size) => size * kibibyte);
    for (const [index, bytes] of sizes.entries()) await write("s", { version: BigInt(index + 1), bytes });
    await startRelay().drain();
    const pages: number[] = [];
    for (let after = 0n; after < 7n; ) {
      const page = await read({ after, upTo: 7n });
      pages.push(page.events.length);
      after = page.next;
    }
    expect(pages).toEqual([1, 1, 1, 3, 1]);
  });

  test("moves on where a filter leaves nothing", async () => {
    await inTenant(database.databases, historyTenant, (tx) =>
      sql`WITH written AS (
            INSERT INTO event (event_id, tenant_id, stream, version, type, payload, actor)
            SELECT gen_random_uuid(), ${historyTenant}, 's', n, 'test.other.v1', '', 'test'
              FROM generate_series(1, 1500) AS n RETURNING id)
          INSERT INTO outbox_pending SELECT id FROM written`.execute(tx),
    );
    for (const stream of ["wanted", "unwanted"]) await write(stream);
    await startRelay().drain();
    expect(await read({ after: 0n, upTo: 1_502n })).toEqual({ events: [], next: 1_000n });
    const page = await read({ after: 1_000n, upTo: 1_502n, stream: "wanted" });
    expect(page).toMatchObject({ events: [{ stream: "wanted", position: 1_501n }], next: 1_502n });
  });
});

describe("a tail", () => {
  test("tells when more was published, and as of when", async () => {
    const tail = createPublishedTail({ db: database.databases.system, logger, pollMs: 5 });
    const follower = tail.follow(historyTenant);
    const empty = await follower.next(-1n, AbortSignal.timeout(120_000));
    expect(empty?.last).toBe(0n);
    const more = follower.next(0n, AbortSignal.timeout(120_000));
    await write("a");
    await startRelay().drain();
    const seen = await more;
    expect(seen?.last).toBe(1n);
    expect(seen?.asOf.getTime()).toBeGreaterThan(empty?.asOf.getTime() ?? 0);
    expect(await follower.next(1n, AbortSignal.abort())).toMatchObject({ last: 1n });
    follower.close();
    await tail.stop();
  });

  test("says so when the database can't be asked, and goes on when it can", async () => {
    const target = new URL(database.url(roles.system));
    const proxy = await startFaultProxy({ host: target.hostname, port: Number(target.port) });
    target.host = `127.0.0.1:${proxy.port}`;
    const db = openDatabase<HistoryTables>({ url: target.href, applicationName: "tail", maxConnections: 1 });
    const tail = createPublishedTail({ db, logger, pollMs: 5 });
    const follower = tail.follow(historyTenant);
    await follower.next(-1n, AbortSignal.timeout(120_000));
    const waiting = follower.next(0n, AbortSignal.timeout(120_000));
    proxy.cut();
    await expect(waiting).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE" });
    proxy.restore();
    await until("it answers again", () =>
      follower.next(-1n, AbortSignal.timeout(120_000)).then(
        () => true,
        () => false,
      ),
    );
    const ended = follower.next(0n, AbortSignal.timeout(120_000));
    await tail.stop();
    await expect(ended).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "SHUTTING_DOWN" });
    await db.destroy();
    await proxy.stop();
  });
});
