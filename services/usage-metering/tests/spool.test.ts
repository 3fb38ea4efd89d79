import { afterEach, expect, test } from "@jest/globals";
import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { asSystem, inTenant } from "@licet/platform/database/database";
import { platformError } from "@licet/platform/errors";
import type { EventBus } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { startTelemetry } from "@licet/platform/telemetry";
import { testServerUrl } from "@licet/platform/testing/database";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { startFaultProxy } from "@licet/platform/testing/proxy";
import { until } from "@licet/platform/testing/until";
import { addSpooled, readSpooled, removeSpooled } from "../src/store/spool.ts";
import { type Harness, type HarnessOptions, startHarness } from "./harness.ts";
import {
  differences,
  expectRefusal,
  type Journal,
  newIds,
  newJournal,
  none,
  spooled,
  tenant,
  track,
} from "./journal.ts";

let harness: Harness | undefined;
const cleanUps: (() => Promise<void>)[] = [];
afterEach(async () => {
  await harness?.stop();
  harness = undefined;
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function start(options: HarnessOptions = {}): Promise<Harness> {
  harness = await startHarness({ spool: { maxEvents: 10_000 }, ...options });
  return harness;
}

const tracked = topicOf(UsageTrackedSchema).name;

function outage(): Error {
  return platformError("DEPENDENCY_UNAVAILABLE", "the event log can't be reached");
}

/** A bus whose publications of events go another way; what was used of them is published meanwhile, too. */
function publishing(bus: EventBus, publish: EventBus["publish"]): EventBus {
  return {
    ...bus,
    publish: (records) => (records.some(({ topic }) => topic === tracked) ? publish(records) : bus.publish(records)),
  };
}

/** Has so many events acknowledged while the log is down. The instance that serves afterwards has not started. */
async function spoolEvents(serving: Harness, count: number): Promise<Journal> {
  const journal = newJournal();
  await serving.replace(publishing(serving.bus, () => Promise.reject(outage())));
  for (let sent = 0; sent < count; sent += 500) await track(serving.as(tenant), journal, newIds(500));
  return journal;
}

/** A log that is lost before one publication and right after the next; the third one passes. And so on. */
function dying(bus: EventBus): { readonly bus: EventBus; readonly publications: () => number } {
  let publications = 0;
  const publish: EventBus["publish"] = async (records) => {
    publications += 1;
    const turn = publications % 3;
    if (turn === 1) throw outage();
    await bus.publish(records);
    if (turn === 2) throw outage();
  };
  return { bus: publishing(bus, publish), publications: () => publications };
}

test("deaths before a publication and between it and the deletion lose and double nothing", async () => {
  const serving = await start();
  const journal = await spoolEvents(serving, 1_500);
  const log = dying(serving.bus);
  await serving.replace(log.bus);
  await serving.metering().start();
  await serving.metering().drain();
  // Three batches, each lost once, published and forgotten once, published once more.
  expect(log.publications()).toBe(9);
  expect(await differences(serving, journal)).toEqual(none);
  expect(await spooled(serving)).toBe(0);
});

test("the check catches what is deleted before it is published", async () => {
  const serving = await start();
  const journal = await spoolEvents(serving, 1_500);
  const { databases } = serving.database;
  const log = dying(serving.bus);
  // The planted bug, around the drainer's own statements.
  for (let batch = await asSystem(databases, readSpooled); batch.length > 0; ) {
    const ids = batch.map(({ id }) => id);
    await asSystem(databases, (tx) => removeSpooled(tx, ids));
    await log.bus.publish(batch.map(({ record }) => record)).catch(() => undefined);
    batch = await asSystem(databases, readSpooled);
  }
  await serving.replace();
  await serving.metering().start();
  await serving.metering().drain();
  expect(await differences(serving, journal)).toEqual({ lost: 500, invented: 0, doubled: 0 });
});

test("of two replicas one drains; when it ends in the midst, the other one goes on", async () => {
  const serving = await start();
  const journal = await spoolEvents(serving, 1_000);
  let reached = 0;
  // The log answers the first replica never.
  await serving.replace(
    publishing(serving.bus, () => {
      reached += 1;
      return new Promise(() => undefined);
    }),
  );
  await serving.metering().start();
  await until("the first replica drains", () => reached > 0);
  let published = 0;
  const other = await serving.another(
    publishing(serving.bus, async (records) => {
      published += records.length;
      await serving.bus.publish(records);
    }),
  );
  await other.start();
  await serving.database.asSuperuser(async (admin) => {
    const sessions = async (where: string): Promise<number> => {
      const { rows } = await admin.query(
        `SELECT count(*)::int AS count FROM pg_stat_activity a
          WHERE datname = $1 AND application_name = 'licet-metering-spool-lock' AND ${where}`,
        [serving.database.name],
      );
      return rows[0].count;
    };
    const holds = "EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory' AND granted)";
    // What has answered a statement since it began has tried in vain.
    const tried = "a.state = 'idle' AND a.query LIKE '%pg_try_advisory_lock%'";
    await until("the second replica has tried", async () => (await sessions(`${tried} AND NOT ${holds}`)) === 1);
    expect(await sessions(holds)).toBe(1);
  });
  expect([published, await spooled(serving)]).toEqual([0, 1_000]);
  await serving.replace();
  await other.drain();
  expect(published).toBe(1_000);
  expect(await differences(serving, journal)).toEqual(none);
});

test("when neither the log nor the database can be reached, events are refused", async () => {
  const { hostname, port } = new URL(testServerUrl());
  const databaseProxy = await startFaultProxy({ host: hostname, port: Number(port || 5432) });
  cleanUps.push(() => databaseProxy.stop());
  const serving = await start({ databaseProxy });
  const journal = await spoolEvents(serving, 500);
  databaseProxy.cut();
  await Promise.all(Array.from({ length: 10 }, () => expectRefusal(track(serving.as(tenant), journal, newIds(5)))));
  databaseProxy.restore();
  await track(serving.as(tenant), journal, newIds(5));
  // The connections that stand by now stand still: the call must not wait for them beyond its deadline.
  databaseProxy.freeze();
  await expectRefusal(track(serving.as(tenant), journal, newIds(5)));
  databaseProxy.restore();
  await serving.replace();
  await serving.metering().start();
  await serving.metering().drain();
  expect(await differences(serving, journal)).toEqual(none);
});

test("what is spooled is told by the gauges, and its limit refuses batches whole", async () => {
  const telemetry = await startTelemetry({ serviceName: "test", version: "0", host: "127.0.0.1", metricsPort: 0 });
  cleanUps.push(() => telemetry.stop());
  const scrape = async () => (await fetch(`http://127.0.0.1:${telemetry.port}/metrics`)).text();
  const serving = await start({ spool: { maxEvents: 30 } });
  let down = true;
  await serving.replace(
    publishing(serving.bus, (records) => (down ? Promise.reject(outage()) : serving.bus.publish(records))),
  );
  await serving.metering().start();
  const journal = newJournal();
  await track(serving.as(tenant), journal, newIds(25));
  await expectRefusal(track(serving.as(tenant), journal, newIds(6)), "SPOOL_FULL");
  await track(serving.as(tenant), journal, newIds(5));
  await until("the gauges tell", async () => {
    const text = await scrape();
    return (
      /^license_usage_spool_events 30$/m.test(text) && /^license_usage_spool_oldest_age_seconds 0*[^0\s]/m.test(text)
    );
  });
  down = false;
  await serving.metering().drain();
  await until("the gauges tell of none", async () => /^license_usage_spool_events 0$/m.test(await scrape()));
  expect(await differences(serving, journal)).toEqual(none);
  expect(journal.acknowledged.size).toBe(30);
});

test("no tenant reads or writes what another one has spooled", async () => {
  const serving = await start();
  await spoolEvents(serving, 500);
  const { databases } = serving.database;
  const [first] = await asSystem(databases, readSpooled);
  if (first === undefined) throw new Error("nothing is spooled");
  const read = (as: string) => inTenant(databases, as, (tx) => tx.selectFrom("usage_spool").select("id").execute());
  for (const as of [tenant, "rankmath"]) await expect(read(as)).rejects.toMatchObject({ code: "42501" });
  await expect(inTenant(databases, "rankmath", (tx) => addSpooled(tx, tenant, [first.record]))).rejects.toMatchObject({
    message: expect.stringContaining("row-level security"),
  });
  expect(await spooled(serving)).toBe(500);
  expect(await isolationBreaches(serving.database)).toEqual([]);
});
