import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import { asSystem } from "@licet/platform/database/database";
import { StalePositionError } from "@licet/platform/events/bus";
import { createConsumer } from "@licet/platform/events/consumer";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { until } from "@licet/platform/testing/until";
import { sql } from "kysely";
import type { UsageEvent } from "../src/domain/event.ts";
import { fromTracked } from "../src/events.ts";
import { loadOffset, moveOffset } from "../src/store/offsets.ts";
import { countEvents } from "../src/store/usage.ts";
import { type Harness, startHarness } from "./harness.ts";

type Event = MessageInitShape<typeof UsageEventSchema>;

let harness: Harness;
beforeEach(async () => {
  harness = await startHarness();
});
afterEach(() => harness.stop());

const customers = ["ada", "bea", "cyd", "dan", "eve"];

function newEvents(count: number): Event[] {
  return Array.from({ length: count }, (_, index) => ({
    id: newId(),
    source: `gateway-${index % 3}`,
    customerId: customers[index % customers.length] ?? "",
    metric: "exchange_requests",
    quantity: "1",
  }));
}

/** Sends events until they are acknowledged, a quarter of them twice in the batch and now and then all of them again. */
async function send(events: readonly Event[]): Promise<void> {
  const client = harness.as("tradsys");
  const batch = [...events, ...events.slice(0, events.length / 4)];
  const accepted = () =>
    client.trackUsageBatch({ events: batch }).then(
      () => true,
      () => false,
    );
  // Not in a tight loop: a refusal takes no I/O, and the connections could never recover beside it.
  for (let again = Math.random() < 0.2 ? 2 : 1; again > 0; again--) await until("the events are accepted", accepted);
}

/** What is stored and what is summed, which must both be the distinct accepted events. */
async function counted(): Promise<{ stored: number; summed: number; quantity: number }> {
  const { rows } = await asSystem(harness.database.databases, (tx) =>
    sql<{ stored: bigint; summed: bigint; quantity: string }>`
      SELECT (SELECT count(*) FROM usage_event) AS stored,
             (SELECT coalesce(sum(events), 0)::bigint FROM usage_hourly) AS summed,
             (SELECT coalesce(sum(quantity), 0) FROM usage_hourly) AS quantity`.execute(tx),
  );
  const [row] = rows;
  if (!row) throw new Error("no counts");
  return { stored: Number(row.stored), summed: Number(row.summed), quantity: Number(row.quantity) };
}

/**
 * Breaks a connection of the counters or of the log now and then, wherever it is in its work, until it was enough. Only
 * when more was sent since: by time alone, a slow machine would get nothing done in between.
 */
async function breakConnections(enough: number, sent: () => number): Promise<void> {
  let broken = 0;
  let sentBefore = 0;
  await harness.database.asSuperuser(async (admin) => {
    await until(`${enough} connections are broken`, async () => {
      if (sent() === sentBefore) return false;
      sentBefore = sent();
      const { rowCount } = await admin.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname IN ($1, $2) AND pid <> pg_backend_pid() AND random() < 0.05`,
        [harness.database.name, harness.log.name],
      );
      broken += rowCount ?? 0;
      return broken >= enough && sentBefore > 500;
    });
  });
}

test("two instances and broken connections: each acknowledged event counts once, and a replay adds nothing", async () => {
  const other = await harness.another();
  const instances = [harness.metering(), other];
  await Promise.all(instances.map((instance) => instance.start()));
  let breaking = true;
  let sent = 0;
  const sendOn = async (): Promise<void> => {
    for (; breaking; sent += 40) await send(newEvents(40));
  };
  const broken = breakConnections(20, () => sent).finally(() => {
    breaking = false;
  });
  await Promise.all([broken, sendOn(), sendOn(), sendOn()]);
  // A connection that was broken may show that only when it is used.
  const drained = () =>
    Promise.all(instances.map((instance) => instance.drain())).then(
      () => true,
      () => false,
    );
  await until("both have counted all", drained);
  expect(await counted()).toEqual({ stored: sent, summed: sent, quantity: sent });

  await Promise.all([other.stop(), harness.replace()]);
  await asSystem(harness.database.databases, (tx) =>
    tx.updateTable("consumer_offset").set({ next_offset: 0n }).execute(),
  );
  await harness.metering().start();
  await harness.metering().drain();
  expect(await counted()).toEqual({ stored: sent, summed: sent, quantity: sent });
});

/** Counts the log with the real transaction, which dies every third time before it commits, behind a filter. */
async function countWithDeaths(filter: (events: UsageEvent[]) => UsageEvent[]): Promise<void> {
  const { databases } = harness.database;
  const place = { consumer: "test", topic: "licet.usage.v1" };
  let turn = 0;
  const consumer = await createConsumer({
    bus: harness.bus,
    desc: UsageTrackedSchema,
    logger: createLogger({ level: "silent", name: "test" }),
    maxBatchRecords: 50,
    reader: {
      kind: "group",
      group: "test",
      loadOffset: (_topic, partition) => asSystem(databases, (tx) => loadOffset(tx, { ...place, partition })),
    },
    async apply(messages, batch) {
      const events = filter(messages.flatMap(({ message }) => fromTracked(message) ?? []));
      await asSystem(databases, async (tx) => {
        const at = { ...place, partition: batch.partition };
        if (!(await moveOffset(tx, at, batch.firstOffset, batch.nextOffset))) throw new StalePositionError(batch);
        await countEvents(tx, events);
        if (++turn % 3 === 0) throw Object.assign(new Error("killed here"), { code: "57P01" });
      });
    },
  });
  await consumer.caughtUp();
  await consumer.stop();
}

test("the check catches what is deduplicated outside the transaction", async () => {
  await send(newEvents(400));
  const seen = new Set<string>();
  // The planted bug: ids that a transaction brought are known even when it never committed.
  await countWithDeaths((batch) =>
    batch.filter(({ source, id }) => !seen.has(`${source}/${id}`) && seen.add(`${source}/${id}`)),
  );
  expect((await counted()).summed).toBeLessThan(400);
});

test("the same deaths lose nothing when the transaction deduplicates", async () => {
  await send(newEvents(400));
  await countWithDeaths((batch) => batch);
  expect(await counted()).toEqual({ stored: 400, summed: 400, quantity: 400 });
});

test("tells repetitions from contradictions, within a batch and across batches", async () => {
  const event = (id: string, quantity: string): UsageEvent => ({
    tenant: "tradsys",
    source: "gateway",
    id,
    customerId: "nile-brokers",
    licenseId: "",
    metric: "exchange_requests",
    feature: "",
    action: "",
    quantity,
    dimensions: {},
    occurredAt: new Date("2026-11-20T00:00:00Z"),
    acceptedAt: new Date("2026-11-22T10:00:00Z"),
    actor: "key",
  });
  const count = (...events: UsageEvent[]) => asSystem(harness.database.databases, (tx) => countEvents(tx, events));
  expect(await count(event("a", "1"), event("a", "1.0"), event("b", "2"))).toEqual({
    fresh: 2,
    duplicates: 1,
    conflicts: 0,
  });
  expect(await count(event("a", "1"), event("b", "3"), event("c", "4"), event("c", "5"))).toEqual({
    fresh: 1,
    duplicates: 3,
    conflicts: 2,
  });
  expect(await counted()).toEqual({ stored: 3, summed: 3, quantity: 7 });
});
