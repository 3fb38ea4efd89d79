import { afterAll, afterEach, beforeAll, describe, expect, test } from "@jest/globals";
import { describeOwnKafka } from "@licet/platform/testing/kafka";
import { until } from "@licet/platform/testing/until";
import { type FaultyLog, faultyKafka, faultyPostgres, openLog } from "./faulty-log.ts";
import { type Harness, type HarnessOptions, startHarness } from "./harness.ts";
import { differences, expectRefusal, newIds, newJournal, none, spooled, tenant, track } from "./journal.ts";
import { startVictim } from "./victim-process.ts";

/** Fetching Kafka for the first time and starting it. */
const START_MS = 300_000;
/** Kafka notices after 10 s that a killed member of a group is gone. */
const TEST_MS = 300_000;

describe("on the Postgres log", () => whileDown(faultyPostgres));
describeOwnKafka("on Kafka", () => whileDown(faultyKafka));

function whileDown(startLog: () => Promise<FaultyLog>): void {
  let log: FaultyLog;
  let harness: Harness | undefined;
  beforeAll(async () => {
    log = await startLog();
  }, START_MS);
  afterEach(async () => {
    log.proxy.restore();
    await harness?.stop();
    harness = undefined;
  }, TEST_MS);
  afterAll(() => log?.stop());

  const start = async (options: HarnessOptions = {}): Promise<Harness> => {
    harness = await startHarness({ ...options, openBus: (url) => openLog(log.pathTo(url)) });
    return harness;
  };
  const accepted = (serving: Harness, journal = newJournal()) =>
    until("the log takes events again", () =>
      track(serving.as(tenant), journal, newIds(1)).then(
        () => true,
        () => false,
      ),
    );

  test.each<["cut off" | "frozen", (log: FaultyLog) => void]>([
    ["cut off", ({ proxy }) => proxy.cut()],
    ["frozen", ({ proxy }) => proxy.freeze()],
  ])(
    "%s: every call is refused within its deadline, and what was acknowledged is counted",
    async (how, fail) => {
      const serving = await start();
      await serving.metering().start();
      const journal = newJournal();
      const client = serving.as(tenant);
      // The first of all takes a Kafka that has just started a while.
      await accepted(serving, journal);
      await track(client, journal, newIds(20));
      const before = journal.acknowledged.size;
      fail(log);
      // A frozen Kafka is reached by new connections: only what is under way when it freezes is sure to be refused.
      for (let round = 0; round < (how === "frozen" ? 1 : 5); round++) {
        const calls = Array.from({ length: 10 }, () => track(client, journal, newIds(5)));
        await Promise.all(calls.map((call) => expectRefusal(call)));
      }
      expect(journal.acknowledged.size).toBe(before);
      log.proxy.restore();
      await accepted(serving, journal);
      await serving.metering().drain();
      expect(await differences(serving, journal)).toEqual(none);
    },
    TEST_MS,
  );

  test(
    "with a spool: what a killed process acknowledged during the outage is counted once",
    async () => {
      const maxEvents = 100_000;
      const serving = await start({ spool: { maxEvents } });
      const { database } = serving;
      const config = {
        database: { appUrl: database.url("licet_app"), systemUrl: database.url("licet_system") },
        maxConnections: 8,
        spool: { maxEvents },
      };
      const victim = await startVictim({ config, tenant, log: log.pathTo(serving.log.url("licet_system")) });
      const journal = newJournal();
      const before = newIds(50);
      await track(victim, journal, before);
      log.proxy.cut();
      const during = newIds(300);
      for (let from = 0; from < during.length; from += 50) {
        const ids = during.slice(from, from + 50);
        // New ones twice, and some from before the outage again.
        await Promise.all([track(victim, journal, [...ids, ...before.slice(0, 10)]), track(victim, journal, ids)]);
      }
      expect(journal.acknowledged.size).toBe(350);
      const interrupted = Promise.allSettled(Array.from({ length: 20 }, () => track(victim, journal, newIds(20))));
      await victim.kill();
      await interrupted;
      expect(await spooled(serving)).toBeGreaterThanOrEqual(during.length);
      log.proxy.restore();
      await serving.metering().start();
      await serving.metering().drain();
      expect(await differences(serving, journal)).toEqual(none);
      expect(await spooled(serving)).toBe(0);
      await track(serving.as(tenant), journal, during);
      await serving.metering().drain();
      expect(await differences(serving, journal)).toEqual(none);
    },
    TEST_MS,
  );

  test(
    "with a spool: the service that runs through an outage hands on what it spooled",
    async () => {
      const serving = await start({ spool: { maxEvents: 100 } });
      await serving.metering().start();
      const journal = newJournal();
      log.proxy.cut();
      for (let round = 0; round < 10; round++) await track(serving.as(tenant), journal, newIds(10));
      await expectRefusal(track(serving.as(tenant), journal, newIds(1)), "SPOOL_FULL");
      expect(await spooled(serving)).toBe(100);
      log.proxy.restore();
      await until("the spool is empty", async () => (await spooled(serving)) === 0);
      await accepted(serving, journal);
      await serving.metering().drain();
      expect(await differences(serving, journal)).toEqual(none);
    },
    TEST_MS,
  );
}
