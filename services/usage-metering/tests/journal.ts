import type { MessageInitShape } from "@bufbuild/protobuf";
import { expect } from "@jest/globals";
import type { TrackUsageBatchRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { asSystem } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { sql } from "kysely";
import type { Harness } from "./harness.ts";

/** The tenant that the journals' events are of. */
export const tenant = "tradsys";

/** Whoever takes batches of events: a client, or a process. */
interface Tracker {
  trackUsageBatch(request: MessageInitShape<typeof TrackUsageBatchRequestSchema>): Promise<unknown>;
}

/** What a test has sent about one customer, and of which it was told that it is accepted. */
export interface Journal {
  readonly customerId: string;
  readonly sent: Set<string>;
  readonly acknowledged: Set<string>;
}

export function newJournal(): Journal {
  return { customerId: newId(), sent: new Set(), acknowledged: new Set() };
}

export function newIds(count: number): string[] {
  return Array.from({ length: count }, () => newId());
}

/** Sends events of these ids, one of quantity 1 each, and notes what becomes of them. @throws what the call ends with. */
export async function track(tracker: Tracker, journal: Journal, ids: readonly string[]): Promise<void> {
  for (const id of ids) journal.sent.add(id);
  await tracker.trackUsageBatch({
    events: ids.map((id) => ({ id, customerId: journal.customerId, metric: "exchange_requests", quantity: "1" })),
  });
  for (const id of ids) journal.acknowledged.add(id);
}

/** What is wrong with the counts of a journal: acknowledged and not counted, counted and not sent, counted twice. */
export async function differences(harness: Harness, journal: Journal): Promise<Record<string, number>> {
  const { customerId, sent, acknowledged } = journal;
  const { rows } = await asSystem(harness.database.databases, (tx) =>
    sql<{ ids: string[]; summed: bigint }>`
      SELECT (SELECT coalesce(array_agg(event_id), '{}') FROM usage_event WHERE customer_id = ${customerId}) AS ids,
             (SELECT coalesce(sum(events), 0)::bigint FROM usage_hourly WHERE customer_id = ${customerId}) AS summed`.execute(
      tx,
    ),
  );
  const [{ ids, summed } = { ids: [], summed: 0n }] = rows;
  const counted = new Set(ids);
  return {
    lost: [...acknowledged].filter((id) => !counted.has(id)).length,
    invented: ids.filter((id) => !sent.has(id)).length,
    doubled: Number(summed) - counted.size,
  };
}

export const none = { lost: 0, invented: 0, doubled: 0 };

/** How many events are in the spool, of all tenants. */
export async function spooled(harness: Harness): Promise<number> {
  const { rows } = await asSystem(harness.database.databases, (tx) =>
    sql<{ count: bigint }>`SELECT count(*) FROM usage_spool`.execute(tx),
  );
  return Number(rows[0]?.count);
}

/** Expects a refusal that tells the sender when to come again. */
export async function expectRefusal(call: Promise<unknown>, reason = "DEPENDENCY_UNAVAILABLE"): Promise<void> {
  await expect(call).rejects.toMatchObject({ code: "UNAVAILABLE", reason, retryAfterMs: 1_000 });
}
