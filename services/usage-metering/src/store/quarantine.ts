import type { Selectable, Transaction } from "kysely";
import type { UsageEvent } from "../domain/event.ts";
import type { DB, UsageEvent as UsageEventTable } from "./schema.ts";

/** An event that contradicts a counted one of the same source and id. */
export interface QuarantinedEvent {
  event: UsageEvent;
  counted: UsageEvent;
  payloadHash: Uint8Array;
  quarantinedAt: Date;
}

/** What quarantined events are sorted by, newest first. */
export interface QuarantineKey {
  quarantinedAt: Date;
  source: string;
  eventId: string;
  payloadHash: Uint8Array;
}

const columns = [
  "tenant_id",
  "source",
  "event_id",
  "customer_id",
  "license_id",
  "metric",
  "feature",
  "action",
  "quantity",
  "dimensions",
  "occurred_at",
  "accepted_at",
  "actor",
] as const;

function eventFromRow(row: Pick<Selectable<UsageEventTable>, (typeof columns)[number]>): UsageEvent {
  return {
    tenant: row.tenant_id,
    source: row.source,
    id: row.event_id,
    customerId: row.customer_id,
    licenseId: row.license_id,
    metric: row.metric,
    feature: row.feature,
    action: row.action,
    quantity: row.quantity,
    dimensions: row.dimensions as Record<string, string>,
    occurredAt: row.occurred_at,
    acceptedAt: row.accepted_at,
    actor: row.actor,
  };
}

/** Up to `limit` quarantined events of a tenant, newest first, behind `after`. */
export async function listQuarantined(
  tx: Transaction<DB>,
  tenant: string,
  after: QuarantineKey | undefined,
  limit: number,
): Promise<QuarantinedEvent[]> {
  const rows = await tx
    .selectFrom("usage_quarantine")
    .select([...columns, "payload_hash", "quarantined_at"])
    .where("tenant_id", "=", tenant)
    .$if(after !== undefined, (query) => {
      const { quarantinedAt, source, eventId, payloadHash } = after as QuarantineKey;
      return query.where(({ eb, refTuple, tuple }) =>
        eb(
          refTuple("quarantined_at", "source", "event_id", "payload_hash"),
          "<",
          tuple(quarantinedAt, source, eventId, Buffer.from(payloadHash)),
        ),
      );
    })
    .orderBy("quarantined_at", "desc")
    .orderBy("source", "desc")
    .orderBy("event_id", "desc")
    .orderBy("payload_hash", "desc")
    .limit(limit)
    .execute();
  const counted = await findCounted(tx, tenant, rows);
  return rows.flatMap((row) => {
    const first = counted.get(keyOf(row));
    return first
      ? [{ event: eventFromRow(row), counted: first, payloadHash: row.payload_hash, quarantinedAt: row.quarantined_at }]
      : [];
  });
}

async function findCounted(
  tx: Transaction<DB>,
  tenant: string,
  keys: readonly { source: string; event_id: string }[],
): Promise<Map<string, UsageEvent>> {
  if (keys.length === 0) return new Map();
  const rows = await tx
    .selectFrom("usage_event")
    .select(columns)
    .where("tenant_id", "=", tenant)
    .where(({ eb, refTuple, tuple }) =>
      eb(
        refTuple("source", "event_id"),
        "in",
        keys.map(({ source, event_id }) => tuple(source, event_id)),
      ),
    )
    .execute();
  return new Map(rows.map((row) => [keyOf(row), eventFromRow(row)]));
}

function keyOf({ source, event_id }: { source: string; event_id: string }): string {
  return JSON.stringify([source, event_id]);
}
