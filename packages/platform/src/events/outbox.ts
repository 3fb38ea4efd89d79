import { setTimeout as delay } from "node:timers/promises";
import { type Generated, type Kysely, type Selectable, sql, type Transaction } from "kysely";
import { openDatabase } from "../database/database.ts";
import { dontWait, keepPlanDontWait } from "../database/session.ts";
import type { Logger } from "../logging.ts";
import { busLimits, type EventBus, type OutgoingRecord } from "./bus.ts";
import { createCondition } from "./condition.ts";
import { createSessionLocks } from "./session-locks.ts";

/**
 * The tables of a service that publishes its history, in the service's own migrations. `event` is append-only: the
 * history, the audit trail and the source of any replay. `outbox_pending` marks what is still to be published.
 */
export interface OutboxTables {
  event: {
    id: Generated<bigint>;
    event_id: string;
    tenant_id: string;
    stream: string;
    version: bigint;
    type: string;
    payload: Uint8Array;
    actor: string;
    traceparent: string | null;
    created_at: Generated<Date>;
  };
  outbox_pending: { event_id: bigint };
}

/** An event to be written. */
export interface NewEvent {
  /** UUID; the same on every delivery. */
  readonly eventId: string;
  readonly tenantId: string;
  /** What the event happened to, such as `customer/cairo-capital`; its events are numbered by `version`. */
  readonly stream: string;
  /** One more than the stream's last. Raise it under a row lock of the stream *first*: then ids, versions and commits agree. */
  readonly version: bigint;
  readonly type: string;
  readonly payload: Uint8Array;
  /** Who caused it: the id of a credential, or the name of a worker. */
  readonly actor: string;
  readonly traceparent?: string | undefined;
}

/** A written event. */
export interface StoredEvent extends NewEvent {
  /** Rises in the order of writing within one stream; between streams the order of commits can differ. */
  readonly id: bigint;
  readonly createdAt: Date;
}

/**
 * Writes an event and its pending mark in the transaction of the change it tells of. It does not NOTIFY: that makes
 * committing transactions queue for one lock, held through the flush to disk; see {@link Relay.wake}.
 *
 * It is sent with the next statement, which throws the database's unique violation (23505) when the stream has that version
 * already; see `dontWait`.
 */
export async function append<DB extends OutboxTables>(tx: Transaction<DB>, event: NewEvent): Promise<void> {
  await appendAll(tx, [event]);
}

/**
 * Writes several events, in their order, as {@link append} does one. At most some thousand: each takes eight parameters of
 * the 65,535 that a statement can have.
 */
export async function appendAll<DB extends OutboxTables>(
  tx: Transaction<DB>,
  events: readonly NewEvent[],
): Promise<void> {
  if (events.length === 0) return;
  const rows = events.map(
    (event) => sql`(${event.eventId}, ${event.tenantId}, ${event.stream}, ${event.version}, ${event.type},
                    ${event.payload}, ${event.actor}, ${event.traceparent ?? null})`,
  );
  await sql`
    WITH written AS (
      INSERT INTO event (event_id, tenant_id, stream, version, type, payload, actor, traceparent)
      VALUES ${sql.join(rows)}
      RETURNING id)
    INSERT INTO outbox_pending (event_id) SELECT id FROM written
    ${events.length === 1 ? keepPlanDontWait : dontWait}`.execute(tx);
}

/** What {@link createRelay} needs: where events come from, where they go, and as what. */
export interface RelayOptions {
  /** The system role's URL of the database with the outbox. */
  readonly url: string;
  readonly bus: Pick<EventBus, "publish" | "heartbeat">;
  /** The records of an event, none if nobody is to hear of it. A pure function; it must not throw. */
  readonly toRecords: (event: StoredEvent) => readonly OutgoingRecord[];
  /** Topics that get the database's time once a second, behind everything committed before it. */
  readonly heartbeatTopics: readonly string[];
  readonly logger: Logger;
  /** How often the outbox is looked at, in milliseconds; 100 when absent. */
  readonly pollMs?: number;
}

/** Publishes what is pending, in order. Of all relays of a database one works at a time; the others stand by. */
export interface Relay {
  start(): void;
  /** Looks at the outbox at once: something was committed. A hint; without it the next poll finds it. */
  wake(): void;
  /** Resolves when everything that was committed before the call is published, by this relay or another one. */
  drain(): Promise<void>;
  stop(): Promise<void>;
}

/** Most events published in one go, and most bytes of their payloads, unless the first alone is larger. */
const batchEvents = 500;
const batchBytes = 8 * 1024 * 1024;
const heartbeatMs = 1_000;
/** Delays after a failure, in milliseconds: doubled from the first to the last. */
const firstRetryMs = 50;
const lastRetryMs = 2_000;
const lockName = "licet-outbox-relay";

/**
 * Creates the relay of a database's outbox. A mark is deleted after its event is published, so a crash in between
 * publishes twice and never skips. Whoever publishes version n + 1 of a stream has seen version n published or
 * publishes it before: consumers that drop versions they know see each stream complete and in order.
 */
export function createRelay(options: RelayOptions): Relay {
  return new PostgresRelay(options);
}

class PostgresRelay implements Relay {
  readonly #options: RelayOptions;
  readonly #db: Kysely<OutboxTables>;
  readonly #stopping = new AbortController();
  readonly #changed = createCondition();
  readonly #published = createCondition();
  #woken = false;
  #heartbeatAt = 0;
  #running: Promise<void> = Promise.resolve();

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#db = openDatabase({ url: options.url, applicationName: "licet-relay", maxConnections: 2 });
  }

  start(): void {
    this.#running = this.#run();
  }

  wake(): void {
    this.#woken = true;
    this.#changed.notify();
  }

  async drain(): Promise<void> {
    const { signal } = this.#stopping;
    const { rows } = await sql<{ last: bigint | null }>`SELECT max(event_id) AS last FROM outbox_pending`.execute(
      this.#db,
    );
    const last = rows[0]?.last ?? 0n;
    this.wake();
    for (;;) {
      const pending = await this.#db
        .selectFrom("outbox_pending")
        .select("event_id")
        .where("event_id", "<=", last)
        .limit(1)
        .execute();
      if (pending.length === 0) return;
      signal.throwIfAborted();
      await this.#published.wait(AbortSignal.any([signal, AbortSignal.timeout(this.#pollMs)]));
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error("the relay was stopped"));
    await this.#running;
    await this.#db.destroy();
  }

  get #pollMs(): number {
    return this.#options.pollMs ?? 100;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const locks = createSessionLocks({ ...this.#options, applicationName: "licet-relay-lock" });
    while (!signal.aborted) {
      const lock = await locks.acquire(lockName, signal);
      if (lock === undefined) break;
      await this.#lead(AbortSignal.any([signal, lock.signal]));
      await lock.release();
    }
    await locks.stop();
  }

  /** Publishes until `held` aborts. */
  async #lead(held: AbortSignal): Promise<void> {
    let failures = 0;
    while (!held.aborted) {
      this.#woken = false;
      try {
        await this.#turn(held);
        failures = 0;
        if (!this.#woken) await this.#changed.wait(AbortSignal.any([held, AbortSignal.timeout(this.#pollMs)]));
      } catch (error) {
        const retryMs = Math.min(lastRetryMs, firstRetryMs * 2 ** Math.min(failures, 10));
        failures++;
        const level = failures < 5 ? "warn" : "error";
        this.#options.logger[level]({ err: error, failures, retryMs }, "the outbox was not published; trying again");
        await delay(retryMs, undefined, { signal: held }).catch(() => undefined);
      }
    }
  }

  /** Publishes everything pending; when a heartbeat is due, the database's time from before that goes behind it. */
  async #turn(held: AbortSignal): Promise<void> {
    const due = this.#options.heartbeatTopics.length > 0 && performance.now() - this.#heartbeatAt >= heartbeatMs;
    const before = due ? await this.#databaseTime() : undefined;
    for (let full = true; full && !held.aborted; ) full = await this.#publishBatch(held);
    if (before === undefined || held.aborted) return;
    for (const topic of this.#options.heartbeatTopics) await this.#options.bus.heartbeat(topic, before);
    this.#heartbeatAt = performance.now();
  }

  async #databaseTime(): Promise<Date> {
    const { rows } = await sql<{ now: Date }>`SELECT now()`.execute(this.#db);
    if (rows[0] === undefined) throw new Error("SELECT now() returned no row");
    return rows[0].now;
  }

  /** Publishes the oldest pending events and deletes their marks; true when there may be more. */
  async #publishBatch(held: AbortSignal): Promise<boolean> {
    const { events, more } = await readPending(this.#db);
    for (const records of chunks(events.flatMap((event) => [...this.#options.toRecords(event)]))) {
      if (held.aborted) return false;
      await this.#options.bus.publish(records);
    }
    if (events.length > 0) {
      const ids = events.map(({ id }) => id);
      await sql`DELETE FROM outbox_pending WHERE event_id = ANY(${ids}::bigint[])`.execute(this.#db);
      this.#published.notify();
    }
    return more;
  }
}

type PendingRow = Selectable<OutboxTables["event"]> & { readonly found: bigint };

/** The oldest pending events within the bounds of a batch, and whether there may be more. */
async function readPending(db: Kysely<OutboxTables>): Promise<{ events: StoredEvent[]; more: boolean }> {
  const { rows } = await sql<PendingRow>`
    SELECT id, event_id, tenant_id, stream, version, type, payload, actor, traceparent, created_at, found FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY id) AS bytes, count(*) OVER () AS found
        FROM (SELECT e.id, e.event_id, e.tenant_id, e.stream, e.version, e.type, e.payload, e.actor, e.traceparent, e.created_at
                FROM outbox_pending p JOIN event e ON e.id = p.event_id
               ORDER BY p.event_id LIMIT ${batchEvents}) AS oldest) AS summed
     WHERE bytes <= ${batchBytes} OR bytes = octet_length(payload)
     ORDER BY id`.execute(db);
  const found = Number(rows[0]?.found ?? 0n);
  const events = rows.map((row) => ({
    id: row.id,
    eventId: row.event_id,
    tenantId: row.tenant_id,
    stream: row.stream,
    version: row.version,
    type: row.type,
    payload: row.payload,
    actor: row.actor,
    traceparent: row.traceparent ?? undefined,
    createdAt: row.created_at,
  }));
  return { events, more: found === batchEvents || found > events.length };
}

/** Cuts records into pieces that one `publish` takes. */
function* chunks(records: readonly OutgoingRecord[]): Generator<OutgoingRecord[]> {
  let chunk: OutgoingRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    if (chunk.length === busLimits.publishRecords || bytes + record.value.length > busLimits.publishBytes) {
      yield chunk;
      chunk = [];
      bytes = 0;
    }
    chunk.push(record);
    bytes += record.value.length;
  }
  if (chunk.length > 0) yield chunk;
}

/** Where a replay begins: at an event, or at the first one written at or after a time. */
export type ReplayFrom = { readonly id: bigint } | { readonly time: Date };

/** What {@link replay} has marked. */
export interface Replayed {
  /** Events that are pending again, or were still. */
  readonly events: bigint;
  /** The first of them; undefined when there is none. */
  readonly firstId: bigint | undefined;
}

/** Marks set in one transaction. */
const replayStep = 10_000;

/**
 * Marks every event from a place on as pending again: the relay publishes them once more, in their order, before what
 * is written from now on. Readers that drop versions they know are not harmed. A time stands for the first event
 * written since: ids agree with the order of a stream where times may not.
 *
 * @param url the system role's URL of the database with the outbox.
 * @throws Error when the database can't be reached.
 */
export async function replay(url: string, from: ReplayFrom): Promise<Replayed> {
  const db = openDatabase<OutboxTables>({ url, applicationName: "licet-replay", maxConnections: 1 });
  try {
    const first =
      "id" in from
        ? await sql<{ first: bigint | null }>`SELECT min(id) AS first FROM event WHERE id >= ${from.id}`.execute(db)
        : await sql<{ first: bigint | null }>`
            SELECT min(id) AS first FROM event WHERE created_at >= ${from.time}`.execute(db);
    const firstId = first.rows[0]?.first ?? undefined;
    if (firstId === undefined) return { events: 0n, firstId };
    let events = 0n;
    for (let next: bigint | undefined = firstId; next !== undefined; ) {
      const step: MarkedStep = await markStep(db, next);
      events += step.marked;
      next = step.next;
    }
    return { events, firstId };
  } finally {
    await db.destroy();
  }
}

interface MarkedStep {
  readonly marked: bigint;
  /** Where the next step begins; undefined behind the last event. */
  readonly next: bigint | undefined;
}

async function markStep(db: Kysely<OutboxTables>, from: bigint): Promise<MarkedStep> {
  const { rows } = await sql<{ marked: bigint; last: bigint | null }>`
    WITH step AS (SELECT id FROM event WHERE id >= ${from} ORDER BY id LIMIT ${replayStep}),
    marked AS (INSERT INTO outbox_pending (event_id) SELECT id FROM step ON CONFLICT DO NOTHING)
    SELECT count(*) AS marked, max(id) AS last FROM step`.execute(db);
  const { marked, last } = rows[0] ?? { marked: 0n, last: null };
  return { marked, next: last !== null && marked === BigInt(replayStep) ? last + 1n : undefined };
}
