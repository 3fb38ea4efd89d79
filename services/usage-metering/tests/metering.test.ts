import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { UsageGranularity } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import type { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import { asSystem, openDatabase } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import fc from "fast-check";
import { sql } from "kysely";
import { type Harness, startHarness } from "./harness.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await harness.metering().start();
});
afterAll(() => harness.stop());

type Event = MessageInitShape<typeof UsageEventSchema>;
const at = (text: string) => timestampFromDate(new Date(text));
const event = (changes: Event = {}): Event => ({
  id: newId(),
  source: "gateway",
  customerId: "nile",
  metric: "exchange_requests",
  quantity: "1",
  ...changes,
});

async function totals(tenant: string, customerId: string) {
  await harness.metering().drain();
  const stats = await harness.as(tenant).getUsageStats({ customerId, startTime: at("2025-01-01T00:00:00Z") });
  return Object.fromEntries(stats.totals.map(({ metric, quantity, events }) => [metric, [quantity, events]]));
}

describe("counting", () => {
  test("1,000 events, each sent twice, singly and in batches, count 1,000", async () => {
    const events = Array.from({ length: 1_000 }, () => event({ customerId: "twice" }));
    const client = harness.as("tradsys");
    await Promise.all(events.slice(0, 500).map((one) => client.trackUsage({ event: one })));
    await client.trackUsageBatch({ events: events.slice(500) });
    const again = await client.trackUsageBatch({ events });
    expect(again.accepted).toBe(1_000);
    expect(await totals("tradsys", "twice")).toEqual({ exchange_requests: ["1000", 1_000n] });
  });

  test("the key is tenant, source and id: the same id elsewhere is another event", async () => {
    const same = event({ id: "same", customerId: "keys", quantity: "0.25" });
    await harness.as("tradsys").trackUsage({ event: same });
    await harness.as("tradsys").trackUsage({ event: { ...same, source: "other" } });
    await harness.as("rankmath").trackUsage({ event: same });
    expect(await totals("tradsys", "keys")).toEqual({ exchange_requests: ["0.5", 2n] });
    expect(await totals("rankmath", "keys")).toEqual({ exchange_requests: ["0.25", 1n] });
  });

  test("a repetition with other content changes nothing: the first stands", async () => {
    const first = event({ customerId: "conflict", quantity: "3" });
    await harness.as("tradsys").trackUsage({ event: first });
    await harness.metering().drain();
    await harness.as("tradsys").trackUsage({ event: { ...first, quantity: "5" } });
    expect(await totals("tradsys", "conflict")).toEqual({ exchange_requests: ["3", 1n] });
  });

  test("a repetition 40 days later counts nothing", async () => {
    const old = event({ customerId: "late", occurredAt: at("2026-11-01T00:00:00Z") });
    await harness.as("tradsys").trackUsage({ event: old });
    const before = harness.clock.now;
    harness.clock.now = new Date(before.getTime() + 40 * 86_400_000);
    await harness.as("tradsys").trackUsage({ event: old });
    expect(await totals("tradsys", "late")).toEqual({ exchange_requests: ["1", 1n] });
    harness.clock.now = before;
  });

  test("whatever is sent, in whatever order and repetition, sums equal the distinct events", async () => {
    const decimals = fc
      .tuple(fc.nat(999), fc.nat(999))
      .map(([whole, part]) => `${whole}.${`${part}`.padStart(3, "0")}`);
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(30), decimals), { minLength: 1, maxLength: 60 }),
        fc.infiniteStream(fc.nat(10_000)),
        async (sent, picks) => {
          run += 1;
          const customerId = `property-${run}`;
          const quantities = new Map(sent.map(([id, quantity]) => [id, quantity]));
          const events = [...quantities].map(([id, quantity]) => event({ id: `${run}-${id}`, customerId, quantity }));
          const repeated = [...events, ...events.filter(() => (picks.next().value ?? 0) % 3 === 0)];
          const sorted = repeated.map((one) => [picks.next().value ?? 0, one] as const).sort(([a], [b]) => a - b);
          await harness.as("tradsys").trackUsageBatch({ events: sorted.map(([, one]) => one) });
          const thousandths = [...quantities.values()].reduce((sum, text) => sum + BigInt(text.replace(".", "")), 0n);
          const [quantity, count] = (await totals("tradsys", customerId)).exchange_requests ?? [];
          expect(count).toBe(BigInt(quantities.size));
          expect(Math.round(Number(quantity) * 1_000)).toBe(Number(thousandths));
        },
      ),
      { numRuns: 15 },
    );
  });
});

describe("quarantine", () => {
  const listed = async (tenant: string, customerId: string) => {
    await harness.metering().drain();
    const { events } = await harness.as(tenant).listQuarantinedEvents({ pageSize: 500 });
    return events.filter(({ event: sent }) => sent?.customerId === customerId);
  };

  test("keeps what contradicts a counted event, each contradiction once, beside what was counted", async () => {
    const customerId = "quarantined";
    const first = event({ customerId, quantity: "3", dimensions: { region: "eg" } });
    const other = { ...first, quantity: "5" };
    await harness.as("tradsys").trackUsage({ event: first });
    await harness.metering().drain();
    for (let times = 0; times < 3; times++) await harness.as("tradsys").trackUsageBatch({ events: [first, other] });
    await harness.as("tradsys").trackUsage({ event: { ...first, quantity: "7" } });
    const found = await listed("tradsys", customerId);
    expect(found.map(({ event: sent }) => sent?.quantity).sort()).toEqual(["5", "7"]);
    expect(found.map(({ countedEvent }) => countedEvent?.quantity)).toEqual(["3", "3"]);
    expect(found[0]).toMatchObject({ actor: "key", event: { id: first.id, dimensions: { region: "eg" } } });
    expect(await totals("tradsys", customerId)).toEqual({ exchange_requests: ["3", 1n] });
    expect(await listed("rankmath", customerId)).toEqual([]);
  });

  test("finds a contradiction inside one batch, and takes 1.0 and 1 for the same", async () => {
    const customerId = "one-batch";
    const one = event({ customerId, quantity: "1" });
    await harness
      .as("tradsys")
      .trackUsageBatch({ events: [one, { ...one, quantity: "1.0" }, { ...one, action: "X" }] });
    const [found, ...rest] = await listed("tradsys", customerId);
    expect(rest).toEqual([]);
    expect([found?.countedEvent?.action, found?.event?.action].sort()).toEqual(["", "X"]);
  });

  test("pages without gaps or repetitions", async () => {
    const customerId = "quarantine-pages";
    for (let index = 0; index < 5; index++) {
      const one = event({ customerId });
      await harness.as("tradsys").trackUsageBatch({ events: [one, { ...one, quantity: "2" }] });
    }
    const whole = await listed("tradsys", customerId);
    expect(whole).toHaveLength(5);
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await harness.as("tradsys").listQuarantinedEvents({ pageSize: 2, pageToken });
      seen.push(
        ...page.events
          .filter(({ event: sent }) => sent?.customerId === customerId)
          .map(({ event: sent }) => sent?.id ?? ""),
      );
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(seen).toEqual(whole.map(({ event: sent }) => sent?.id));
  });
});

describe("crashes", () => {
  test("what was acknowledged while nobody counted is counted after a restart, once", async () => {
    await harness.replace();
    const events = Array.from({ length: 50 }, () => event({ customerId: "uncounted" }));
    await harness.as("tradsys").trackUsageBatch({ events });
    await harness.metering().start();
    expect(await totals("tradsys", "uncounted")).toEqual({ exchange_requests: ["50", 50n] });
  });

  test("a transaction that fails at its last step leaves nothing, and is repeated whole", async () => {
    await harness.replace();
    const events = Array.from({ length: 20 }, () => event({ customerId: "halfway" }));
    await harness.as("tradsys").trackUsageBatch({ events });
    // Fails the first three transactions that count these events, in the commit.
    await asOwner(`
      CREATE SEQUENCE failures;
      GRANT USAGE ON SEQUENCE failures TO licet_system;
      CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('failures') <= 3 THEN RAISE EXCEPTION 'planted' USING ERRCODE = '40001'; END IF;
        RETURN NULL;
      END $$;
      CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON usage_hourly DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.customer_id = 'halfway') EXECUTE FUNCTION fail()`);
    await harness.metering().start();
    expect(await totals("tradsys", "halfway")).toEqual({ exchange_requests: ["20", 20n] });
    const { rows } = await asSystem(harness.database.databases, (tx) =>
      sql<{ events: bigint }>`SELECT count(*) AS events FROM usage_event WHERE customer_id = 'halfway'`.execute(tx),
    );
    expect(rows).toEqual([{ events: 20n }]);
  });

  test("when the log can't take an event, it is refused and not counted", async () => {
    const refusing = { ...harness.bus, publish: () => Promise.reject(new Error("ECONNREFUSED")) };
    await harness.replace(refusing as never);
    await expect(harness.as("tradsys").trackUsage({ event: event({ customerId: "refused" }) })).rejects.toThrow();
    await harness.replace();
    await harness.metering().start();
    expect(await totals("tradsys", "refused")).toEqual({});
  });
});

async function asOwner(statements: string): Promise<void> {
  const url = harness.database.url("licet_owner");
  const owner = openDatabase({ url, applicationName: "test", maxConnections: 1 });
  await sql.raw(statements).execute(owner);
  await owner.destroy();
}

describe("GetUsageStats", () => {
  beforeAll(async () => {
    const events = [
      event({ customerId: "stats", metric: "api_calls", quantity: "10", occurredAt: at("2026-11-20T23:59:59.999Z") }),
      event({ customerId: "stats", metric: "api_calls", quantity: "5", occurredAt: at("2026-11-21T00:00:00Z") }),
      event({ customerId: "stats", metric: "api_calls", quantity: "2", occurredAt: at("2026-11-21T01:30:00Z") }),
      event({
        customerId: "stats",
        metric: "orders",
        quantity: "7",
        feature: "egx_access",
        occurredAt: at("2026-11-21T01:00:00Z"),
      }),
    ];
    await harness.as("tradsys").trackUsageBatch({ events });
    await harness.metering().drain();
  });

  const ask = (changes: object) =>
    harness.as("tradsys").getUsageStats({
      customerId: "stats",
      startTime: at("2026-11-20T00:00:00Z"),
      endTime: at("2026-11-22T00:00:00Z"),
      ...changes,
    });
  const seen = ({ buckets }: Awaited<ReturnType<typeof ask>>) =>
    buckets.map(({ startTime, metric, quantity }) => [
      timestampDate(startTime as never).toISOString(),
      metric,
      quantity,
    ]);

  test("by day, hour and as a whole, with totals of the whole", async () => {
    expect(seen(await ask({ granularity: UsageGranularity.DAY }))).toEqual([
      ["2026-11-20T00:00:00.000Z", "api_calls", "10"],
      ["2026-11-21T00:00:00.000Z", "api_calls", "7"],
      ["2026-11-21T00:00:00.000Z", "orders", "7"],
    ]);
    expect(seen(await ask({ granularity: UsageGranularity.HOUR, metric: "api_calls" }))).toEqual([
      ["2026-11-20T23:00:00.000Z", "api_calls", "10"],
      ["2026-11-21T00:00:00.000Z", "api_calls", "5"],
      ["2026-11-21T01:00:00.000Z", "api_calls", "2"],
    ]);
    const whole = await ask({});
    expect(seen(whole)).toEqual([
      ["2026-11-20T00:00:00.000Z", "api_calls", "17"],
      ["2026-11-20T00:00:00.000Z", "orders", "7"],
    ]);
    expect(whole.totals).toMatchObject([
      { metric: "api_calls", quantity: "17", events: 3n },
      { metric: "orders", quantity: "7", events: 1n },
    ]);
  });

  test("narrowed by feature; the end is excluded", async () => {
    expect(seen(await ask({ feature: "egx_access" }))).toEqual([["2026-11-20T00:00:00.000Z", "orders", "7"]]);
    expect((await ask({ endTime: at("2026-11-21T00:00:00Z") })).totals).toMatchObject([{ quantity: "10" }]);
  });

  test("a day that lies in the period only in part is told as that part", async () => {
    const { buckets } = await ask({
      granularity: UsageGranularity.DAY,
      metric: "api_calls",
      startTime: at("2026-11-20T23:00:00Z"),
      endTime: at("2026-11-21T01:00:00Z"),
    });
    const iso = (time: unknown) => timestampDate(time as never).toISOString();
    expect(buckets.map((bucket) => [iso(bucket.startTime), iso(bucket.endTime), bucket.quantity])).toEqual([
      ["2026-11-20T23:00:00.000Z", "2026-11-21T00:00:00.000Z", "10"],
      ["2026-11-21T00:00:00.000Z", "2026-11-21T01:00:00.000Z", "5"],
    ]);
  });

  test("a period that leaves the years that can be told is refused", async () => {
    await expect(ask({ startTime: undefined, endTime: at("9999-12-31T23:59:59Z") })).rejects.toMatchObject({
      violations: [expect.objectContaining({ field: "end_time" })],
    });
  });

  test("a license's id is one, in whatever case it comes", async () => {
    const licenseId = newId();
    const one = event({ customerId: "cases", licenseId: licenseId.toUpperCase() });
    await harness.as("tradsys").trackUsageBatch({ events: [one, { ...one, licenseId }] });
    await harness.metering().drain();
    for (const id of [licenseId, licenseId.toUpperCase()]) {
      const stats = await harness.as("tradsys").getUsageStats({ customerId: "cases", licenseId: id });
      expect(stats.buckets).toMatchObject([{ licenseId, quantity: "1" }]);
    }
  });

  test("pages without gaps or repetitions", async () => {
    const all: unknown[] = [];
    let pageToken = "";
    do {
      const page = await ask({ granularity: UsageGranularity.HOUR, pageSize: 1, pageToken });
      expect(page.buckets.length).toBeLessThanOrEqual(1);
      all.push(...seen(page));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(all).toEqual(seen(await ask({ granularity: UsageGranularity.HOUR })));
  });

  test("another tenant sees nothing of it", async () => {
    const stats = await harness.as("rankmath").getUsageStats({ customerId: "stats" });
    expect([stats.buckets, stats.totals]).toEqual([[], []]);
    expect(await isolationBreaches(harness.database)).toEqual([]);
  });
});

describe("bad input is refused with its field, and nothing of the batch is accepted", () => {
  test.each<[string, Event, string]>([
    ["a negative quantity", { quantity: "-1" }, "quantity"],
    ["a quantity that is no decimal", { quantity: "1e3" }, "quantity"],
    ["no quantity", { quantity: "" }, "quantity"],
    ["no id", { id: "" }, "id"],
    ["no customer", { customerId: "" }, "customer_id"],
    ["a malformed metric", { metric: "API Calls" }, "metric"],
    ["a time in the future", { occurredAt: at("2026-11-22T10:02:00Z") }, "occurred_at"],
    ["a time before what is kept", { occurredAt: at("2023-11-22T09:00:00Z") }, "occurred_at"],
  ])("%s", async (_what, changes, field) => {
    const customerId = changes.customerId ?? `bad-${newId()}`;
    const bad = event({ customerId, ...changes });
    const refusal = (path: string) => ({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field: `${path}.${field}` })],
    });
    await expect(harness.as("tradsys").trackUsage({ event: bad })).rejects.toMatchObject(refusal("event"));
    const batch = { events: [event({ customerId: "good" }), bad] };
    await expect(harness.as("tradsys").trackUsageBatch(batch)).rejects.toMatchObject(refusal("events[1]"));
    expect(await totals("tradsys", "good")).toEqual({});
  });
});
