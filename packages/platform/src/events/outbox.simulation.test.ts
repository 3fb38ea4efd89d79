import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { sql } from "kysely";
import { inTenant } from "../database/database.ts";
import { roles } from "../database/roles.ts";
import { createLogger } from "../logging.ts";
import { createTestDatabase, type TestDatabase } from "../testing/database.ts";
import { simulation } from "../testing/simulation.ts";
import { until } from "../testing/until.ts";
import type { EventBus, OutgoingRecord } from "./bus.ts";
import { append, createRelay, type OutboxTables, type StoredEvent } from "./outbox.ts";

interface Tables extends OutboxTables {
  stream: { name: string; version: bigint };
}

const migrations = fileURLToPath(new URL("../testing/outbox-migrations", import.meta.url));
const logger = createLogger({ level: "silent", name: "outbox-simulation" });
const tenant = "t";
const streams = ["a", "b", "c"] as const;
type Stream = (typeof streams)[number];
/** Where a relay can be made to stand still, and how it goes on: as if nothing was, or refused or not answered by the log. */
type Place = "before sending" | "before marking";

type Happening =
  | { readonly kind: "write"; readonly stream: Stream }
  | { readonly kind: "end"; readonly stream: Stream; readonly commits: boolean }
  | { readonly kind: "freeze"; readonly place: Place }
  | { readonly kind: "wake"; readonly answered: boolean }
  | { readonly kind: "cut" }
  | { readonly kind: "settle" };

const anyStream = fc.constantFrom(...streams);
const anyHappening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("write" as const), stream: anyStream }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("end" as const),
      stream: anyStream,
      commits: fc.nat(4).map(Boolean),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("freeze" as const),
      place: fc.constantFrom<Place>("before sending", "before marking"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("wake" as const), answered: fc.boolean() }) },
  { weight: 1, arbitrary: fc.constant<Happening>({ kind: "cut" }) },
  { weight: 2, arbitrary: fc.constant<Happening>({ kind: "settle" }) },
);

/** A transaction that has written an event and is still open. */
interface OpenWrite {
  readonly end: PromiseWithResolvers<boolean>;
  readonly ended: Promise<void>;
}

type Sent = { readonly stream: string; readonly version: number } | { readonly issuedAt: Date };

class RolledBack extends Error {}

/** A real outbox with two relays, writers whose transactions stay open, and a log where relays can be frozen. */
class World {
  readonly database: TestDatabase<Tables>;
  readonly sent: Sent[] = [];
  readonly commits: { readonly stream: string; readonly version: number; readonly before: Date }[] = [];
  readonly open = new Map<Stream, OpenWrite>();
  readonly frozen: PromiseWithResolvers<boolean>[] = [];
  #freezeAt: Place | undefined;
  #lockWasCut = false;

  constructor(database: TestDatabase<Tables>) {
    this.database = database;
  }

  readonly bus: Pick<EventBus, "publish" | "heartbeat"> = {
    publish: async (records) => {
      if (!(await this.#pass("before sending"))) throw new Error("the log was away");
      this.sent.push(...records.map(({ key, headers }) => ({ stream: key, version: Number(headers.version) })));
      if (!(await this.#pass("before marking"))) throw new Error("the answer was lost");
    },
    heartbeat: async (_topic, issuedAt) => void this.sent.push({ issuedAt }),
  };

  async happen(happening: Happening): Promise<void> {
    switch (happening.kind) {
      case "write":
        return this.#write(happening.stream);
      case "end":
        return this.#end(happening.stream, happening.commits);
      case "freeze":
        this.#freezeAt = happening.place;
        return;
      case "wake":
        this.frozen.shift()?.resolve(happening.answered);
        return;
      case "cut":
        return this.#cut();
      case "settle":
        return until("the relays have published all, or stand still", async () => {
          return this.frozen.length === 2 || this.#halted() || (await this.#pending()) === 0;
        });
    }
  }

  /** Ends all that was made to wait. */
  async release(): Promise<void> {
    this.#freezeAt = undefined;
    for (const stream of streams) await this.#end(stream, true);
    for (const frozen of this.frozen.splice(0)) frozen.resolve(true);
  }

  /** One relay stands still and holds the lock, so nothing goes on. */
  #halted(): boolean {
    return this.frozen.length === 1 && !this.#lockWasCut;
  }

  async #pass(place: Place): Promise<boolean> {
    if (this.#freezeAt !== place) return true;
    this.#freezeAt = undefined;
    this.#lockWasCut = false;
    const frozen = Promise.withResolvers<boolean>();
    this.frozen.push(frozen);
    return frozen.promise;
  }

  async #write(stream: Stream): Promise<void> {
    if (this.open.has(stream)) return;
    const end = Promise.withResolvers<boolean>();
    const written = Promise.withResolvers<void>();
    const ended = this.#transact(stream, end.promise, written.resolve);
    this.open.set(stream, { end, ended });
    await written.promise;
  }

  async #transact(stream: Stream, commits: Promise<boolean>, written: () => void): Promise<void> {
    const version = await inTenant(this.database.databases, tenant, async (tx) => {
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
      written();
      if (!(await commits)) throw new RolledBack();
      return Number(raised.version);
    }).catch((error: unknown) => {
      if (error instanceof RolledBack) return undefined;
      throw error;
    });
    if (version === undefined) return;
    const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(this.database.databases.app);
    if (rows[0] !== undefined) this.commits.push({ stream, version, before: rows[0].now });
  }

  async #end(stream: Stream, commits: boolean): Promise<void> {
    const open = this.open.get(stream);
    this.open.delete(stream);
    open?.end.resolve(commits);
    await open?.ended;
  }

  /** Ends the connection that holds the relays' lock: another relay gets it, and the one that had it may not know yet. */
  async #cut(): Promise<void> {
    this.#lockWasCut = true;
    await this.database.asSuperuser((client) =>
      client.query(
        `SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
         WHERE l.locktype = 'advisory' AND l.granted AND a.datname = $1 AND a.application_name = 'licet-relay-lock'`,
        [this.database.name],
      ),
    );
  }

  async #pending(): Promise<number> {
    const { rows } = await sql<{ count: bigint }>`SELECT count(*) FROM outbox_pending`.execute(
      this.database.databases.system,
    );
    return Number(rows[0]?.count ?? 0n);
  }
}

const toRecords = ({ stream, version, payload }: StoredEvent): OutgoingRecord[] => [
  { topic: "history", key: stream, headers: { version: String(version) }, value: payload },
];

/** What a consumer that drops versions it knows must find: no gap, none lost, and each time behind what it covers. */
function check({ sent, commits }: World): void {
  const versions = new Map<string, number>();
  for (const one of sent) {
    if ("issuedAt" in one) {
      const missed = commits.find((c) => c.before < one.issuedAt && (versions.get(c.stream) ?? 0) < c.version);
      if (missed) throw new Error(`a heartbeat overtook version ${missed.version} of ${missed.stream}`);
      continue;
    }
    const last = versions.get(one.stream) ?? 0;
    if (one.version > last + 1) throw new Error(`${one.stream}: version ${one.version} came after ${last}`);
    versions.set(one.stream, Math.max(last, one.version));
  }
  for (const { stream, version } of commits) {
    if ((versions.get(stream) ?? 0) < version) throw new Error(`${stream}: version ${version} was lost`);
  }
}

// Losing and finding the lock takes half a second: few courses, long ones.
simulation("consumers get each stream complete and in order, whichever relay freezes where", { runs: 10 }, () =>
  fc.asyncProperty(fc.array(anyHappening, { minLength: 20, maxLength: 40, size: "max" }), async (happenings) => {
    const database = await createTestDatabase<Tables>({ name: "outbox_simulation", migrations });
    const world = new World(database);
    const url = database.url(roles.system);
    const options = { url, bus: world.bus, toRecords, heartbeatTopics: ["history"], logger, pollMs: 10 };
    const relays = [createRelay(options), createRelay(options)];
    for (const relay of relays) relay.start();
    try {
      for (const happening of happenings) await world.happen(happening);
      await world.release();
      await relays[0]?.drain();
      check(world);
    } finally {
      await world.release();
      await Promise.all(relays.map((relay) => relay.stop()));
      await database.drop();
    }
  }),
);
