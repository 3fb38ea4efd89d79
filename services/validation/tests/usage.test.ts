import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { Enforcement, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { type MetricLevelSchema, UsageLevelsSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { DecisionReason, LimitSource } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { OutgoingRecord } from "@licet/platform/events/bus";
import { topicOf, toRecord } from "@licet/platform/events/cloudevent";
import { newId } from "@licet/platform/ids";
import { until } from "@licet/platform/testing/until";
import { catalog, createHarness, dayMs, type Harness, license, snapshot, startMs } from "./harness.ts";

const topic = topicOf(UsageLevelsSchema).name;
const customerId = "nile-brokers";
const feature = "basic_trading";

let harness: Harness;
beforeEach(async () => {
  // Without the fence: snapshots are not what grows old here.
  harness = await createHarness({ fenceMs: Number.POSITIVE_INFINITY });
  harness.licensing.catalogs.push(catalog(1n, [feature]));
  const monthly = { metric: "exports", window: LimitWindow.PER_MONTH, enforcement: Enforcement.HARD, maximum: 10n };
  const daily = { metric: "api_calls", window: LimitWindow.PER_DAY, enforcement: Enforcement.SOFT, maximum: 100n };
  harness.licensing.snapshots.set(
    `tradsys/${customerId}`,
    snapshot(customerId, 1n, license({ limits: [monthly, daily] })),
  );
});
afterEach(() => harness.close());

const ask = (client: ReturnType<Harness["client"]>) => client.validateFeature({ customerId, feature });

/** What usage metering publishes: of today, which is the first of the month. */
function levels(version: bigint, ...metrics: MessageInitShape<typeof MetricLevelSchema>[]): OutgoingRecord {
  const start = timestampFromMs(startMs);
  const message = {
    tenantId: "tradsys",
    customerId,
    version,
    levels: metrics.map((metric) => ({ dayStart: start, monthStart: start, ...metric })),
  };
  const about = { source: "licet/usage-metering", type: "licet.usage.levels.v1", subject: `customer/${customerId}` };
  const key = `tradsys/${customerId}`;
  return toRecord({ schema: UsageLevelsSchema, message, id: newId(), key, time: new Date(startMs), ...about });
}

const used = (exports: string, apiCalls = "0") =>
  [
    { metric: "api_calls", dayUsed: apiCalls, monthUsed: apiCalls, lifetimeUsed: apiCalls },
    { metric: "exports", dayUsed: exports, monthUsed: exports, lifetimeUsed: exports },
  ] as const;

const beat = (issuedAtMs: number): Promise<void> => harness.bus.heartbeat(topic, new Date(issuedAtMs));

test("a hard quota denies once it is used up, a soft one is told, and both count anew in the next window", async () => {
  await harness.validation.start();
  const client = harness.client();
  const unknown = await ask(client);
  expect(unknown.valid).toBe(true);
  expect(unknown.usageStalenessMs).toBeUndefined();

  await harness.publish(levels(1n, ...used("9.5", "100")));
  await beat(startMs - 2_000);
  await until("usage is known", async () => (await ask(client)).usageStalenessMs !== undefined);
  expect(await ask(client)).toMatchObject({
    valid: true,
    usageStalenessMs: 2_000n,
    limitViolations: [{ metric: "api_calls", current: "100", limit: 100n, source: LimitSource.USAGE }],
  });

  await harness.publish(levels(2n, ...used("10", "100")));
  await until("the quota is used up", async () => !(await ask(client)).valid);
  expect(await ask(client)).toMatchObject({
    reason: DecisionReason.LIMIT_EXCEEDED,
    limitViolations: [
      {
        metric: "exports",
        current: "10",
        limit: 10n,
        window: LimitWindow.PER_MONTH,
        source: LimitSource.USAGE,
        resetsAt: timestampFromMs(startMs + 30 * dayMs),
      },
      { metric: "api_calls" },
    ],
    violations: [expect.stringContaining("begins anew on 2030-07-01 00:00 UTC"), expect.anything()],
  });
  const told = await client.validateFeature({ customerId, feature, context: { "exports/per_month": "10" } });
  expect(told).toMatchObject({ valid: true, limitViolations: [{ metric: "api_calls", source: LimitSource.USAGE }] });
  harness.clock.ms = startMs + dayMs;
  expect((await ask(client)).limitViolations).toMatchObject([{ metric: "exports" }]);
  harness.clock.ms = startMs + 30 * dayMs;
  expect(await ask(client)).toMatchObject({ valid: true, limitViolations: [] });
});

test("while usage metering is away decisions go on by what is known, and tell how old that is", async () => {
  await harness.publish(levels(7n, ...used("10")));
  await beat(startMs);
  await harness.validation.start();
  const client = harness.client();
  // Started behind it all: the topic is read from its beginning before the service is ready.
  expect(await ask(client)).toMatchObject({ reason: DecisionReason.LIMIT_EXCEEDED, usageStalenessMs: 0n });
  await harness.bus.heartbeat("licet.entitlements.v1", new Date(startMs + 20_000));
  harness.clock.ms = startMs + 20_000;
  expect(await ask(client)).toMatchObject({
    reason: DecisionReason.LIMIT_EXCEEDED,
    usageStalenessMs: 20_000n,
    degraded: false,
  });
  await harness.publish(levels(6n, ...used("1")), levels(8n, ...used("many")));
  await beat(startMs + 20_000);
  await until("the heartbeat behind it has come", async () => (await ask(client)).usageStalenessMs === 0n);
  expect((await ask(client)).reason).toBe(DecisionReason.LIMIT_EXCEEDED);
});
