import { type Selectable, sql, type Transaction } from "kysely";
import type { OutboxTables, StoredEvent } from "./outbox.ts";

/**
 * The tables by which published events are read in an order that loses none, beside those of the outbox and in the
 * service's own migrations. `event_position` gives each event its place among those of its tenant when its pending mark
 * is deleted, under the row lock of `event_tail`: when a position is seen, all lower ones are.
 */
export interface PublishedTables extends OutboxTables {
  event_tail: { tenant_id: string; last_position: bigint };
  event_position: { tenant_id: string; position: bigint; event_id: bigint };
}

/** An event with its place among all published events of its tenant, from 1. */
export interface PublishedEvent extends StoredEvent {
  readonly position: bigint;
}

/** What {@link readPublished} reads. */
export interface PageOptions {
  /** The position behind which the page begins. */
  readonly after: bigint;
  /** The position that it ends at, at the latest; one that {@link readTail} or a tail has told. */
  readonly upTo: bigint;
  /** The types to return. */
  readonly types: readonly string[];
  /** The stream to return events of; of all when absent. */
  readonly stream?: string | undefined;
}

/** A page of published events. */
export interface PublishedPage {
  readonly events: readonly PublishedEvent[];
  /** The position behind which the next page begins: nothing up to it is missing from this one. */
  readonly next: bigint;
}

/** Positions looked at for one page, whatever the filter leaves of them. */
const pagePositions = 1_000n;
/** Most events of a page, and most bytes of their payloads, unless the first alone is larger. */
const pageEvents = 100;
const pageBytes = 1024 * 1024;

/** How far a tenant's published events reached when they were looked at. */
export interface TailState {
  /** The position of the last one; 0 when there is none. */
  readonly last: bigint;
  /** The database's time from before the look: what was published until then has a position of at most `last`. */
  readonly asOf: Date;
}

/** How far a tenant's published events reach now. Call it first in its transaction, whose time is that of its begin. */
export async function readTail<DB extends PublishedTables>(tx: Transaction<DB>, tenant: string): Promise<TailState> {
  const { rows } = await sql<TailState>`
    SELECT coalesce((SELECT last_position FROM event_tail WHERE tenant_id = ${tenant}), 0) AS last,
           now() AS "asOf"`.execute(tx);
  if (rows[0] === undefined) throw new Error("a SELECT without FROM returned no row");
  return rows[0];
}

type PageRow = Selectable<OutboxTables["event"]> & { readonly position: bigint; readonly found: bigint };

/** The next events of a tenant in the order of their positions, within the bounds of a page. */
export async function readPublished<DB extends PublishedTables>(
  tx: Transaction<DB>,
  tenant: string,
  { after, upTo, types, stream }: PageOptions,
): Promise<PublishedPage> {
  const end = after + pagePositions < upTo ? after + pagePositions : upTo;
  const { rows } = await sql<PageRow>`
    SELECT position, id, event_id, tenant_id, stream, version, type, payload, actor, traceparent, created_at, found FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY position) AS bytes, count(*) OVER () AS found
        FROM (SELECT p.position, e.id, e.event_id, e.tenant_id, e.stream, e.version, e.type, e.payload, e.actor,
                     e.traceparent, e.created_at
                FROM event_position p JOIN event e ON e.id = p.event_id
               WHERE p.tenant_id = ${tenant} AND p.position > ${after} AND p.position <= ${end}
                 AND e.type = ANY(${[...types]}::text[]) AND e.stream = coalesce(${stream ?? null}::text, e.stream)
               ORDER BY p.position LIMIT ${pageEvents}) AS oldest) AS summed
     WHERE bytes <= ${pageBytes} OR bytes = octet_length(payload)
     ORDER BY position`.execute(tx);
  const found = Number(rows[0]?.found ?? 0n);
  const last = rows.at(-1);
  const cut = last !== undefined && (found === pageEvents || found > rows.length);
  return { events: rows.map(toPublished), next: cut ? last.position : end };
}

function toPublished(row: PageRow): PublishedEvent {
  return {
    position: row.position,
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
  };
}
