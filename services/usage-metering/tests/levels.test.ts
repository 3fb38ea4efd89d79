import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import {
  type UsageLevels,
  UsageLevelsSchema,
  UsageTrackedSchema,
} from "@licet/contracts/licet/metering/v1/metering_events_pb";
import type { UsageEventSchema } from "@licet/contracts/licet/metering/v1/usage_pb";
import { asSystem } from "@licet/platform/database/database";
import { platformError } from "@licet/platform/errors";
import type { EventBus, Subscription } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { createConsumer } from "@licet/platform/events/consumer";
import { newId } from "@licet/platform/ids";
import { createLogger } from "@licet/platform/logging";
import { until } from "@licet/platform/testing/until";
import fc from "fast-check";
import { sql } from "kysely";
import type { UsageEvent } from "../src/domain/event.ts";
import { acceptLog } from "../src/log.ts";
import { raiseLevels } from "../src/store/levels.ts";
import { countEvents } from "../src/store/usage.ts";
import { type Harness, openPostgresLog, startHarness, startOfTime } from "./harness.ts";

const DAY_MS = 86_400_000;
const tracked = topicOf(UsageTrackedSchema).name;

let harness: Harness;
/** One whose levels nobody raises but the test. */
let unstarted: Harness;
beforeAll(async () => {
  [harness, unstarted] = await Promise.all([startHarness(), startHarness()]);
  await harness.metering().start();
});
afterAll(() => Promise.all([harness.stop(), unstarted.stop()]));
beforeEach(() => {
  harness.clock.now = startOfTime;
});

/** What a reader knows that has read the topic of the levels from its beginning. */
interface LevelsReader {
  /** Every message, in the order of its partition. */
  readonly heard: UsageLevels[];
  of(customerId: string): UsageLevels | undefined;
  /** Where its last message lies in its partition. */
  offsetOf(customerId: string): bigint;
  /** Until when all that was accepted is in it, by the oldest heartbeat of all partitions. */
  asOf(): number;
  readonly subscription: Subscription;
}

const partitions = 4;

async function readLevels(bus: EventBus = harness.bus): Promise<LevelsReader> {
  const heard: UsageLevels[] = [];
  const offsets = new Map<string, bigint>();
  const beats = new Array<number>(partitions).fill(0);
  const subscription = await createConsumer({
    bus,
    desc: UsageLevelsSchema,
    reader: { kind: "all", from: "beginning" },
    async apply(messages) {
      for (const { message, record } of messages) {
        heard.push(message);
        offsets.set(message.customerId, record.offset);
      }
    },
    onHeartbeat: ({ partition, issuedAt }) => {
      beats[partition] = issuedAt.getTime();
    },
    logger: createLogger({ level: "silent", name: "test" }),
  });
  await subscription.caughtUp();
  return {
    heard,
    of: (customerId) => heard.findLast((one) => one.customerId === customerId),
    offsetOf: (customerId) => offsets.get(customerId) ?? -1n,
    asOf: () => Math.min(...beats),
    subscription,
  };
}

function track(...events: MessageInitShape<typeof UsageEventSchema>[]) {
  return harness.as("tradsys").trackUsageBatch({
    events: events.map((event) => ({ id: newId(), metric: "api_calls", quantity: "1", ...event })),
  });
}

/** The levels of a customer in short, such as `api_calls 2026-11-22: 3, 2026-11-01: 10, ever: 12`. */
function inShort(message: UsageLevels | undefined): string[] {
  return (message?.levels ?? []).map(
    ({ metric, licenseId, dayStart, dayUsed, monthStart, monthUsed, lifetimeUsed }) => {
      const [day, month] = [dayStart, monthStart].map((at) => at && timestampDate(at).toISOString().slice(0, 10));
      const name = [metric, licenseId].filter((part) => part !== "").join(" of ");
      return `${name} ${day}: ${dayUsed}, ${month}: ${monthUsed}, ever: ${lifetimeUsed}`;
    },
  );
}

test("whatever the order of events and however they are cut into batches, levels are the sums of their windows", async () => {
  const { databases } = unstarted.database;
  const startMs = Date.parse("2026-01-01T00:00:00Z");
  const anyEvent = fc.record({
    at: fc.integer({ min: 0, max: 92 * 24 }).map((hour) => new Date(startMs + hour * 3_600_000 + 60_000)),
    metric: fc.constantFrom("api_calls", "exports"),
    licenseId: fc.constantFrom("", "0197a000-0000-7000-8000-000000000001"),
    quantity: fc.integer({ min: 0, max: 400 }).map((quarters) => quarters / 4),
  });
  const batches = fc.array(fc.array(anyEvent, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(batches, fc.boolean(), async (course, raisedEach) => {
      const customerId = newId();
      for (const batch of course) {
        const events = batch.map((one) => toEvent({ ...one, customerId }));
        await asSystem(databases, (tx) => countEvents(tx, [...events, ...events.slice(0, 1)]));
        if (raisedEach) await asSystem(databases, raiseLevels);
      }
      await asSystem(databases, raiseLevels);
      const { rows } = await asSystem(databases, (tx) =>
        sql<Record<string, string>>`
          SELECT metric, license_id, day, day_used::float8, day_before_used::float8, month, month_used::float8,
                 month_before_used::float8, lifetime_used::float8, events::integer
            FROM usage_level WHERE customer_id = ${customerId} ORDER BY metric, license_id`.execute(tx),
      );
      expect(rows).toEqual(summed(course.flat()));
    }),
    // A counterexample is told as small as half a minute makes it.
    { numRuns: 60, interruptAfterTimeLimit: 30_000 },
  );
});

function toEvent(one: {
  at: Date;
  metric: string;
  licenseId: string;
  quantity: number;
  customerId: string;
}): UsageEvent {
  const { at, quantity, ...event } = one;
  const rest = { tenant: "tradsys", source: "", feature: "", action: "", dimensions: {}, actor: "key" };
  return { ...rest, ...event, id: newId(), quantity: String(quantity), occurredAt: at, acceptedAt: at };
}

/** The slow and obvious way: the rows that the levels must be. */
function summed(events: readonly { at: Date; metric: string; licenseId: string; quantity: number }[]) {
  const names = [...new Set(events.map(({ metric, licenseId }) => `${metric}/${licenseId}`))].sort();
  return names.map((name) => {
    const own = events.filter(({ metric, licenseId }) => `${metric}/${licenseId}` === name);
    const used = (prefix: string) =>
      own.filter(({ at }) => at.toISOString().startsWith(prefix)).reduce((sum, { quantity }) => sum + quantity, 0);
    const last = new Date(Math.max(...own.map(({ at }) => at.getTime())));
    const day = last.toISOString().slice(0, 10);
    const monthBefore = new Date(Date.UTC(last.getUTCFullYear(), last.getUTCMonth() - 1));
    return {
      metric: name.split("/")[0],
      license_id: name.split("/")[1],
      day,
      day_used: used(day),
      day_before_used: used(new Date(last.getTime() - DAY_MS).toISOString().slice(0, 10)),
      month: `${day.slice(0, 7)}-01`,
      month_used: used(day.slice(0, 7)),
      month_before_used: used(monthBefore.toISOString().slice(0, 7)),
      lifetime_used: used(""),
      events: own.length,
    };
  });
}

describe("what is published", () => {
  test("is all that a customer has used, once however often it is sent, and late usage disturbs no later window", async () => {
    const customerId = "ada";
    const reader = await readLevels();
    const at = (text: string) => timestampFromDate(new Date(text));
    const events = [
      { id: newId(), customerId, quantity: "2.5" },
      { id: newId(), customerId, quantity: "4", occurredAt: at("2026-11-02T00:00:00Z") },
      { id: newId(), customerId, metric: "exports", licenseId: "0197a000-0000-7000-8000-00000000000a" },
    ];
    await track(...events);
    const levels = [
      "api_calls 2026-11-22: 2.5, 2026-11-01: 6.5, ever: 6.5",
      "exports of 0197a000-0000-7000-8000-00000000000a 2026-11-22: 1, 2026-11-01: 1, ever: 1",
    ];
    await until("the levels are heard", () => reader.of(customerId)?.version === 3n);
    expect(inShort(reader.of(customerId))).toEqual(levels);

    await track(...events);
    await track({ customerId, quantity: "100", occurredAt: at("2026-08-31T23:59:59Z") });
    await until("the late event is heard", () => reader.of(customerId)?.version === 4n);
    const withLate = ["api_calls 2026-11-22: 2.5, 2026-11-01: 6.5, ever: 106.5", ...levels.slice(1)];
    expect(inShort(reader.of(customerId))).toEqual(withLate);
    expect(reader.heard.filter((one) => one.customerId === customerId).map(({ version }) => version)).toEqual([3n, 4n]);

    const fresh = await readLevels();
    expect(inShort(fresh.of(customerId))).toEqual(withLate);
    await Promise.all([reader, fresh].map(({ subscription }) => subscription.stop()));
  });

  test("comes to a reader that starts anew, whichever instance counted, and a replay of the log changes nothing", async () => {
    const customerIds = Array.from({ length: 250 }, (_, index) => `many-${index}`);
    await track(
      ...customerIds.map((customerId) => ({ customerId })),
      ...customerIds.map((customerId) => ({ customerId })),
    );
    await harness.replace();
    await asSystem(harness.database.databases, (tx) =>
      tx.updateTable("consumer_offset").set({ next_offset: 0n }).execute(),
    );
    await harness.metering().start();
    await harness.metering().drain();
    const counted = Date.now();
    const reader = await readLevels();
    await until("all that was accepted is told", () => reader.asOf() >= counted);
    for (const customerId of customerIds) {
      expect(inShort(reader.of(customerId))).toEqual(["api_calls 2026-11-22: 2, 2026-11-01: 2, ever: 2"]);
    }
    await reader.subscription.stop();
  });

  test("is never a window that has not begun", async () => {
    const reader = await readLevels();
    const customerId = "hasty";
    harness.clock.now = new Date("2026-11-30T23:59:30Z");
    await track({ customerId, quantity: "3" });
    await track({ customerId, occurredAt: timestampFromDate(new Date("2026-12-01T00:00:10Z")) });
    await until("both are heard", () => reader.of(customerId)?.version === 2n);
    expect(inShort(reader.of(customerId))).toEqual(["api_calls 2026-11-30: 3, 2026-11-01: 3, ever: 4"]);
    harness.clock.now = new Date("2026-12-01T00:00:05Z");
    const next = ["api_calls 2026-12-01: 1, 2026-12-01: 1, ever: 4"];
    await until("the new day is told", () => inShort(reader.of(customerId))[0] === next[0]);
    await reader.subscription.stop();
  });

  test("comes again into a log that is accepted in place of the one before", async () => {
    await track({ customerId: "moved" });
    const before = await readLevels();
    await until("it is heard", () => before.of("moved") !== undefined);
    await before.subscription.stop();
    await asSystem(harness.database.databases, (tx) =>
      tx.updateTable("consumer_log").set({ log_id: "another" }).execute(),
    );
    await acceptLog(harness.database.url("licet_system"), await harness.bus.id());
    const after = await readLevels();
    await until("it is heard again", () => after.offsetOf("moved") > before.offsetOf("moved"));
    await after.subscription.stop();
  });
});

describe("heartbeats", () => {
  let rounds = 0;
  let away = false;
  let own: Harness;
  let reader: LevelsReader;
  beforeAll(async () => {
    own = await startHarness({
      spool: { maxEvents: 100 },
      openBus: async (url) => {
        const bus = await openPostgresLog(url);
        return {
          ...bus,
          // Each round asks which log it is, and little else does.
          async id() {
            rounds += 1;
            return bus.id();
          },
          async publish(records) {
            if (away && records.some(({ topic }) => topic === tracked)) {
              throw platformError("DEPENDENCY_UNAVAILABLE", "the log takes no usage");
            }
            return bus.publish(records);
          },
        };
      },
    });
    await own.metering().start();
    reader = await readLevels(own.bus);
  });
  afterAll(() => own.stop());

  const untilRounds = (what: string, more: number): Promise<void> => {
    const enough = rounds + more;
    return until(what, () => rounds >= enough);
  };
  const trackOne = () =>
    own.as("tradsys").trackUsage({ event: { id: newId(), customerId: "slow", metric: "m", quantity: "1" } });

  test("vouch for what is counted only", async () => {
    await until("something is vouched for", () => reader.asOf() > 0);
    const acceptedAt = await own.database.asSuperuser(async (admin) => {
      await admin.query("BEGIN");
      await admin.query("LOCK TABLE consumer_offset IN EXCLUSIVE MODE");
      await trackOne();
      const at = Date.now();
      await untilRounds("rounds have passed without counting", 4);
      expect(reader.asOf()).toBeLessThanOrEqual(at);
      await admin.query("COMMIT");
      return at;
    });
    await until("what was counted is vouched for", () => reader.asOf() > acceptedAt);
    expect(inShort(reader.of("slow"))).toEqual(["m 2026-11-22: 1, 2026-11-01: 1, ever: 1"]);
  });

  test("do not vouch for what is spooled", async () => {
    away = true;
    await trackOne();
    const at = Date.now();
    await untilRounds("rounds have passed without draining", 4);
    expect(reader.asOf()).toBeLessThanOrEqual(at);
    away = false;
    await until("what was spooled is vouched for", () => reader.asOf() > at);
    expect(inShort(reader.of("slow"))).toEqual(["m 2026-11-22: 2, 2026-11-01: 2, ever: 2"]);
  });
});
