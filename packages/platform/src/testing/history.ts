import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { sql } from "kysely";
import { inTenant } from "../database/database.ts";
import { append } from "../events/outbox.ts";
import type { PublishedTables } from "../events/published.ts";
import { createTestDatabase, type TestDatabase } from "./database.ts";

/** The tables of `outbox-migrations`. */
export interface HistoryTables extends PublishedTables {
  stream: { name: string; version: bigint };
}

/** The tenant whose history {@link HistoryWriters} write. */
export const historyTenant = "t";

/** A version of a stream, as somebody has seen it. */
export interface HistoryEntry {
  readonly stream: string;
  readonly version: number;
}

/** Creates a database with an outbox and positions, as a service has them. */
export function createHistoryDatabase(): Promise<TestDatabase<HistoryTables>> {
  const migrations = fileURLToPath(new URL("./outbox-migrations", import.meta.url));
  return createTestDatabase({ name: "history", migrations });
}

/** Writes events in transactions that last a random time, some of which roll back. */
export class HistoryWriters {
  readonly committed = new Map<string, number>();
  /** Per event, a time of the database after its commit. */
  readonly commits: { stream: string; version: number; before: Date }[] = [];
  readonly #database: TestDatabase<HistoryTables>;

  constructor(database: TestDatabase<HistoryTables>) {
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
    const version = await inTenant(this.#database.databases, historyTenant, async (tx) => {
      const raised = await tx
        .insertInto("stream")
        .values({ name: stream, version: 1n })
        .onConflict((conflict) => conflict.column("name").doUpdateSet({ version: sql`stream.version + 1` }))
        .returning("version")
        .executeTakeFirstOrThrow();
      await append(tx, {
        eventId: randomUUID(),
        tenantId: historyTenant,
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
export function checkHistory(
  entries: readonly HistoryEntry[],
  committed: ReadonlyMap<string, number>,
): { duplicates: number } {
  const versions = new Map<string, number>();
  let duplicates = 0;
  for (const one of entries) {
    const last = versions.get(one.stream) ?? 0;
    if (one.version > last + 1) throw new Error(`${one.stream}: version ${one.version} came after ${last}`);
    if (one.version <= last) duplicates++;
    else versions.set(one.stream, one.version);
  }
  for (const [stream, version] of committed) {
    const last = versions.get(stream) ?? 0;
    if (last !== version) throw new Error(`${stream}: ${version} versions were committed, ${last} were seen`);
  }
  return { duplicates };
}
