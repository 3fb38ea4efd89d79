import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { sql } from "kysely";
import { inTenant } from "../database/database.ts";
import { roles } from "../database/roles.ts";
import { createLogger } from "../logging.ts";
import { createTestDatabase, type TestDatabase } from "../testing/database.ts";
import { type FaultProxy, startFaultProxy } from "../testing/proxy.ts";
import { until } from "../testing/until.ts";
import type { EventBus, OutgoingRecord } from "./bus.ts";
import { append, createRelay, type OutboxTables, type Relay, type StoredEvent } from "./outbox.ts";

interface Tables extends OutboxTables {
  stream: { name: string; version: bigint };
}

const migrations = fileURLToPath(new URL("../testing/outbox-migrations", import.meta.url));
const logger = createLogger({ level: "silent", name: "outbox-test" });
const tenant = "t";

/** What a relay sent, in order: records, and heartbeats by their time. */
type Sent = { readonly stream: string; readonly version: number } | { readonly issuedAt: Date };

type Target = Pick<EventBus, "publish" | "heartbeat">;

/** A bus that remembers, and can lose the answer to a publish, as a relay does that is killed before it marks. */
class MemoryBus implements Target {
  readonly sent: Sent[] = [];
  loseAnswers = 0;

  async publish(records: readonly OutgoingRecord[]): Promise<void> {
    this.sent.push(...records.map(({ key, headers }) => ({ stream: key, version: Number(headers.version) })));
    if (Math.random() < this.loseAnswers) throw new Error("the relay died here");
  }

  async heartbeat(_topic: string, issuedAt: Date): Promise<void> {
    this.sent.push({ issuedAt });
  }
}

const toRecords = ({ stream, version, payload }: StoredEvent): OutgoingRecord[] => [
  { topic: "history", key: stream, headers: { version: String(version) }, value: payload },
];

/** Writes events in transactions that last a random time, some of which roll back. */
class Writers {
  readonly committed = new Map<string, number>();
  /** Per event, a time of the database after its commit. */
  readonly commits: { stream: string; version: number; before: Date }[] = [];
  readonly #database: TestDatabase<Tables>;

  constructor(database: TestDatabase<Tables>) {
    this.#database = database;
  }

  async run(events: number, writers = 6): Promise<void> {
    let left = events;
    const write = async (): Promise<void> => {
      while (left-- > 0) await this.#writeOne(`stream-${Math.floor(Math.random() * 20)}`);
    };
    await Promise.all(Array.from({ length: writers }, write));
  }

  async #writeOne(stream: string): Promise<void> {
    const version = await inTenant(this.#database.databases, tenant, async (tx) => {
      const raised = await tx
        .insertInto("stream")
        .values({ name: stream, version: 1n })
        .onConflict((conflict) => conflict.column("name").doUpdateSet({ version: sql`stream.version + 1` }))
        .returning("version")
        .executeTakeFirstOrThrow();
      await append(tx, {
        eventId: randomUUID(),
        tenantId: tenant,
        stream,
        version: raised.version,
        type: "test.happened.v1",
        payload: Buffer.from("x"),
        actor: "test",
      });
      await sql`SELECT pg_sleep(${Math.random() * 0.008})`.execute(tx);
      if (Math.random() < 0.1) throw new RolledBack();
      return Number(raised.version);
    }).catch((error: unknown) => {
      if (error instanceof RolledBack) return undefined;
      throw error;
    });
    if (version === undefined) return;
    this.committed.set(stream, Math.max(version, this.committed.get(stream) ?? 0));
    const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(this.#database.databases.app);
    if (rows[0]) this.commits.push({ stream, version, before: rows[0].now });
  }
}

class RolledBack extends Error {}

/** What the consumers of a history must find: each stream complete and in order, once known versions are dropped. */
function checkHistory(sent: readonly Sent[], committed: ReadonlyMap<string, number>): { duplicates: number } {
  const versions = new Map<string, number>();
  let duplicates = 0;
  for (const one of sent) {
    if (!("stream" in one)) continue;
    const last = versions.get(one.stream) ?? 0;
    if (one.version > last + 1) throw new Error(`${one.stream}: version ${one.version} came after ${last}`);
    if (one.version <= last) duplicates++;
    else versions.set(one.stream, one.version);
  }
  for (const [stream, version] of committed) {
    const last = versions.get(stream) ?? 0;
    if (last !== version) throw new Error(`${stream}: ${version} versions were committed, ${last} were sent`);
  }
  return { duplicates };
}

describe("the relay of an outbox", () => {
  let database: TestDatabase<Tables>;
  let bus: MemoryBus;
  let writers: Writers;
  const relays: Relay[] = [];
  const proxies: FaultProxy[] = [];

  beforeEach(async () => {
    database = await createTestDatabase({ name: "outbox", migrations });
    bus = new MemoryBus();
    writers = new Writers(database);
  });
  afterEach(async () => {
    for (const proxy of proxies) proxy.restore();
    await Promise.all(relays.splice(0).map((relay) => relay.stop()));
    await Promise.all(proxies.splice(0).map((proxy) => proxy.stop()));
    await database.drop();
  });

  async function startRelay(to: Target = bus): Promise<{ relay: Relay; proxy: FaultProxy }> {
    const url = new URL(database.url(roles.system));
    const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port) });
    url.host = `127.0.0.1:${proxy.port}`;
    const relay = createRelay({ url: url.href, bus: to, toRecords, heartbeatTopics: ["history"], logger, pollMs: 10 });
    relay.start();
    relays.push(relay);
    proxies.push(proxy);
    return { relay, proxy };
  }

  test("publishes each committed event once and in order, whatever commits late or rolls back", async () => {
    const { relay } = await startRelay();
    await writers.run(1_000);
    await relay.drain();
    expect(checkHistory(bus.sent, writers.committed)).toEqual({ duplicates: 0 });
    expect([...writers.committed.values()].reduce((sum, version) => sum + version, 0)).toBeGreaterThan(500);
  });

  test("killed between sending and marking, it sends again and skips nothing", async () => {
    const { relay } = await startRelay();
    bus.loseAnswers = 0.2;
    await writers.run(500);
    bus.loseAnswers = 0;
    await relay.drain();
    expect(checkHistory(bus.sent, writers.committed).duplicates).toBeGreaterThan(0);
  });

  test("another relay takes over when the connections of the working one break", async () => {
    const buses = [new MemoryBus(), new MemoryBus()];
    const together = new MemoryBus();
    const members = await Promise.all(
      buses.map((own) =>
        startRelay({
          async publish(records) {
            await own.publish(records);
            await together.publish(records);
          },
          heartbeat: (topic, issuedAt) => own.heartbeat(topic, issuedAt),
        }),
      ),
    );
    const writing = writers.run(1_500);
    let leader = -1;
    for (let round = 0; round < 4; round++) {
      const before = buses.map(({ sent }) => sent.length);
      await until("one relay works", () => buses.some(({ sent }, index) => sent.length > (before[index] ?? 0)));
      leader = buses.findIndex(({ sent }, index) => sent.length > (before[index] ?? 0));
      const heir = 1 - leader;
      const heirBefore = buses[heir]?.sent.length ?? 0;
      members[leader]?.proxy.cut();
      await until("the other relay works", () => (buses[heir]?.sent.length ?? 0) > heirBefore);
      members[leader]?.proxy.restore();
    }
    await writing;
    await members[0]?.relay.drain();
    checkHistory(together.sent, writers.committed);
  });

  test("a relay that stands still loses its place", async () => {
    const standing = new MemoryBus();
    const { proxy } = await startRelay(standing);
    await until("the first relay works", () => standing.sent.length > 0);
    await startRelay();
    proxy.freeze();
    await until("the second relay works", () => bus.sent.length > 0);
    expect(standing.sent.length).toBeLessThan(10);
  });

  test("two relays do not work at the same time", async () => {
    let working = 0;
    let most = 0;
    const watched: Target = {
      async publish(records) {
        most = Math.max(most, ++working);
        await new Promise(setImmediate);
        await bus.publish(records);
        working--;
      },
      heartbeat: (topic, issuedAt) => bus.heartbeat(topic, issuedAt),
    };
    const [first] = await Promise.all([startRelay(watched), startRelay(watched)]);
    await writers.run(300);
    await first?.relay.drain();
    expect(checkHistory(bus.sent, writers.committed)).toEqual({ duplicates: 0 });
    expect(most).toBe(1);
  });

  test("sends the time of the database only behind everything committed before it", async () => {
    const { relay } = await startRelay();
    await writers.run(1_200);
    await relay.drain();
    await until("there are heartbeats", () => bus.sent.filter((one) => "issuedAt" in one).length >= 2);
    const places = new Map(
      bus.sent.map((one, index) => ["stream" in one ? `${one.stream}@${one.version}` : index, index]),
    );
    let compared = 0;
    for (const [index, one] of bus.sent.entries()) {
      if (!("issuedAt" in one)) continue;
      for (const { stream, version } of writers.commits.filter((commit) => commit.before <= one.issuedAt)) {
        compared++;
        expect(places.get(`${stream}@${version}`)).toBeLessThan(index);
      }
    }
    expect(compared).toBeGreaterThan(100);
  });

  test("sends all of a long backlog before the time", async () => {
    await inTenant(database.databases, tenant, async (tx) => {
      await sql`
        WITH written AS (
          INSERT INTO event (event_id, tenant_id, stream, version, type, payload, actor)
          SELECT gen_random_uuid(), ${tenant}, 's', n, 'test.happened.v1', '', 'test' FROM generate_series(1, 1100) AS n
          RETURNING id)
        INSERT INTO outbox_pending SELECT id FROM written`.execute(tx);
    });
    await startRelay();
    await until("there is a heartbeat", () => bus.sent.some((one) => "issuedAt" in one));
    expect(bus.sent.findIndex((one) => "issuedAt" in one)).toBe(1_100);
    checkHistory(bus.sent, new Map([["s", 1_100]]));
  });

  test("reads a backlog of large events in pieces, and one larger than a piece alone", async () => {
    const mebibyte = 1024 * 1024;
    const sizes = [9 * mebibyte, ...Array.from({ length: 20 }, () => mebibyte)];
    await inTenant(database.databases, tenant, async (tx) => {
      for (const [index, size] of sizes.entries()) {
        await append(tx, {
          eventId: randomUUID(),
          tenantId: tenant,
          stream: "s",
          version: BigInt(index + 1),
          type: "test.happened.v1",
          payload: Buffer.alloc(size),
          actor: "test",
        });
      }
    });
    const pieces: number[] = [];
    const { relay } = await startRelay({
      async publish(records) {
        pieces.push(records.length);
        await bus.publish(records);
      },
      heartbeat: (topic, issuedAt) => bus.heartbeat(topic, issuedAt),
    });
    await until("there is a heartbeat", () => bus.sent.some((one) => "issuedAt" in one));
    await relay.drain();
    expect(pieces).toEqual([1, 8, 8, 4]);
    expect(bus.sent.findIndex((one) => "issuedAt" in one)).toBe(sizes.length);
    checkHistory(bus.sent, new Map([["s", sizes.length]]));
  });

  test("works on after its bus failed", async () => {
    const failing = {
      publish: () => Promise.reject(new Error("no bus")),
      heartbeat: () => Promise.reject(new Error("no bus")),
    };
    let target: Target = failing;
    const { relay } = await startRelay({
      publish: (records) => target.publish(records),
      heartbeat: (topic, issuedAt) => target.heartbeat(topic, issuedAt),
    });
    await writers.run(20);
    expect(bus.sent).toEqual([]);
    target = bus;
    await relay.drain();
    checkHistory(bus.sent, writers.committed);
  });

  test("the check catches a relay that remembers the last id", async () => {
    let running = true;
    const relaying = relayByCursor(database, bus, () => running);
    await writers.run(1_000);
    running = false;
    await relaying;
    expect(() => checkHistory(bus.sent, writers.committed)).toThrow(/version|versions/);
  });
});

/** The planted bug: `id > last seen`, which passes over an event that got its id early and commits late. */
async function relayByCursor(database: TestDatabase<Tables>, bus: MemoryBus, running: () => boolean): Promise<void> {
  let lastSeen = 0n;
  for (let last = false; !last; ) {
    last = !running();
    const events = await database.databases.system
      .selectFrom("event")
      .select(["id", "stream", "version", "payload"])
      .where("id", ">", lastSeen)
      .orderBy("id")
      .execute();
    await bus.publish(
      events.map((event) => ({
        topic: "history",
        key: event.stream,
        headers: { version: String(event.version) },
        value: event.payload,
      })),
    );
    lastSeen = events.at(-1)?.id ?? lastSeen;
  }
}
