import type { Patch } from "../planting.ts";
import type { FaultKind } from "./plan.ts";

/** A known bug: a run with it must find differences, or the run proves nothing. */
export interface PlantedBug {
  readonly breaks: string;
  readonly patches: readonly Patch[];
  /** What is done to a database, as its superuser, before the replicas start. */
  readonly sql?: { readonly database: "bus" | "licensing"; readonly text: string };
  /** Which log carries the events; Kafka when absent. */
  readonly log?: "postgres";
  /** The faults that bring it out. */
  readonly only: readonly FaultKind[];
  /** Only replicas and links whose names hold this text are broken; all when absent. */
  readonly targets?: string;
  /** Minutes of faults within which it must be caught. */
  readonly minutes: number;
  /** The invariants of which one must be found broken. */
  readonly caughtBy: readonly string[];
}

const outbox = "packages/platform/src/events/outbox.ts";
const counter = "services/usage-metering/src/workers/counter.ts";
const usage = "services/usage-metering/src/store/usage.ts";

/** All controls, by name. */
export const plantedBugs: Readonly<Record<string, PlantedBug>> = {
  "cursor-relay": {
    breaks: "the relay reads what lies behind the last id it has seen: what commits late is never published",
    patches: [
      {
        file: outbox,
        from: "    const { events, more } = await readPending(this.#db);\n",
        to: `    const memory = globalThis as { relayCursor?: bigint };
    const read = await readPending(this.#db);
    const events = read.events.filter(({ id }) => id > (memory.relayCursor ?? 0n));
    memory.relayCursor = events.at(-1)?.id ?? memory.relayCursor;
    const more = read.more && events.length > 0;
`,
      },
      {
        file: outbox,
        from: `DELETE FROM outbox_pending WHERE event_id = ANY(\${ids}::bigint[])`,
        to: `DELETE FROM outbox_pending WHERE event_id <= (SELECT max(id) FROM unnest(\${ids}::bigint[]) AS id)`,
      },
    ],
    sql: {
      database: "licensing",
      text: `
        CREATE FUNCTION commit_slowly() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          -- Some commits take their time, as any may: an event's id is given long before others can see it.
          IF random() < 0.2 THEN PERFORM pg_sleep(random() * 0.2); END IF;
          RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER commit_slowly AFTER INSERT ON outbox_pending
          DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION commit_slowly();`,
    },
    only: ["kill"],
    targets: "validation",
    minutes: 1,
    caughtBy: ["versions", "convergence", "revocation", "token"],
  },
  "sequence-cursor": {
    breaks: "offsets of the log in Postgres come from a sequence: readers pass over what commits late",
    patches: [],
    sql: {
      database: "bus",
      text: `
        CREATE SEQUENCE record_offset START 1000000;
        GRANT USAGE ON SEQUENCE record_offset TO licet_system;
        CREATE OR REPLACE FUNCTION append_records(
          topics text[], partitions integer[], keys text[], headers jsonb[], payloads bytea[], compacted boolean[]
        ) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
          placed jsonb;
        BEGIN
          WITH added AS (
            INSERT INTO record (topic, partition, "offset", key, headers, value, compacted)
            SELECT i.topic, i.partition, nextval('record_offset'), i.key, i.header, i.payload, i.compact
              FROM unnest(topics, partitions, keys, headers, payloads, compacted)
                   AS i(topic, partition, key, header, payload, compact)
            RETURNING topic, partition, "offset")
          SELECT jsonb_agg(to_jsonb(added)) INTO placed FROM added;
          -- A commit that takes its time, as any may.
          PERFORM pg_sleep(random() * 0.2);
          UPDATE partition p SET next_offset = greatest(p.next_offset, n.last + 1)
            FROM (SELECT topic, partition, max("offset") AS last 
                    FROM jsonb_to_recordset(placed) AS row (topic text, partition integer, "offset" bigint)
                   GROUP BY topic, partition) AS n
           WHERE p.topic = n.topic AND p.partition = n.partition;
        END $$;`,
    },
    log: "postgres",
    only: ["kill"],
    minutes: 1,
    caughtBy: ["usage", "versions"],
  },
  "dedupe-outside": {
    breaks:
      "repetitions are recognised in a transaction of their own, before the sums: a crash in between loses the sums",
    patches: [
      {
        file: usage,
        from: "  const { rows } = await sql<{ fresh: bigint }>`\n    WITH fresh AS (\n",
        to: "  const first = await sql<object>`\n    WITH fresh AS (\n",
      },
      {
        file: usage,
        from: "    ), summed AS (\n",
        to: `    ) SELECT tenant_id, customer_id, metric, hour, feature, license_id, quantity::text FROM fresh\`.execute(tx);
  await sql\`COMMIT\`.execute(tx);
  await sql\`BEGIN\`.execute(tx);
  const { rows } = await sql<{ fresh: bigint }>\`
    WITH fresh AS (
      SELECT * FROM jsonb_to_recordset(\${JSON.stringify(first.rows)}::jsonb) AS row (
        tenant_id text, customer_id text, metric text, hour timestamptz, feature text, license_id text, quantity numeric)
    ), summed AS (
`,
      },
    ],
    // A killed reader is missed for ten seconds; readers that lost their database go on at once, so more is cut off.
    only: ["postgres"],
    minutes: 2,
    caughtBy: ["aggregates", "invoice"],
  },
  "auto-commit": {
    breaks: "the position in the log is committed before the effect: a crash in between loses acknowledged events",
    patches: [
      {
        file: counter,
        from: "        return countEvents(tx, events);\n",
        to: `        const { sql } = await import("kysely");
        await sql\`COMMIT\`.execute(tx);
        await sql\`BEGIN\`.execute(tx);
        return countEvents(tx, events);
`,
      },
    ],
    // A killed reader is missed for ten seconds; readers that lost their database go on at once, so more is cut off.
    only: ["postgres"],
    minutes: 2,
    caughtBy: ["usage"],
  },
  "early-acknowledgement": {
    breaks: "usage is acknowledged before it is in the log",
    patches: [
      {
        file: "services/usage-metering/src/rpc/accept.ts",
        from: "    await ctx.gate.offer(records, leftMs() * LOG_SHARE);\n",
        to: "    ctx.gate.offer(records, leftMs() * LOG_SHARE).catch(() => undefined);\n",
      },
    ],
    only: ["link"],
    targets: "usage-metering-1>kafka",
    minutes: 1,
    caughtBy: ["usage"],
  },
  "no-fence": {
    breaks: "a replica that hears nothing decides by what it last knew, for ever",
    patches: [
      {
        file: "services/validation/src/config.ts",
        from: "  fenceMs: 30_000,\n",
        to: "  fenceMs: Number.POSITIVE_INFINITY,\n",
      },
    ],
    only: ["partition"],
    minutes: 2,
    caughtBy: ["revocation"],
  },
  "shared-group": {
    breaks: "validation replicas share a group, so each hears of some customers only",
    patches: [
      {
        file: "services/validation/src/workers/replication.ts",
        from: '    desc: EntitlementSnapshotSchema,\n    reader: { kind: "all", from },\n',
        to: '    desc: EntitlementSnapshotSchema,\n    reader: { kind: "group", group: "validation" },\n',
      },
    ],
    only: ["redis"],
    minutes: 1,
    caughtBy: ["convergence", "healthy revocation", "revocation"],
  },
  "slot-freed-on-cancel": {
    breaks: "a slot is free as soon as the caller gave up, while the handler runs on",
    patches: [
      {
        file: "packages/platform/src/rpc/middleware/slots.ts",
        from: "        abandoned.then(free, free);\n",
        to: "        free();\n",
      },
    ],
    only: ["redis"],
    minutes: 0.25,
    caughtBy: ["slots"],
  },
  "rls-off": {
    breaks: "row-level security is off on the licenses",
    patches: [],
    sql: { database: "licensing", text: "ALTER TABLE license DISABLE ROW LEVEL SECURITY" },
    only: ["redis"],
    minutes: 0.25,
    caughtBy: ["isolation"],
  },
  "lost-lock": {
    breaks: "a relay goes on after it lost its lock, and readers take over lower versions",
    patches: [
      {
        file: outbox,
        from: "      await this.#lead(AbortSignal.any([signal, lock.signal]));\n",
        to: "      await this.#lead(signal);\n",
      },
      {
        file: "packages/platform/src/replica.ts",
        from: "    if (known !== undefined && (known > value.version || (known === value.version && values.has(key)))) return false;\n",
        to: "    if (known === value.version && values.has(key)) return false;\n",
      },
    ],
    only: ["stop", "link"],
    targets: "licensing-",
    minutes: 3,
    caughtBy: ["monotonic", "revocation", "healthy revocation"],
  },
};
