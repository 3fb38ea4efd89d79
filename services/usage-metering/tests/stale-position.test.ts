import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { asSystem } from "@licet/platform/database/database";
import { partitionOf } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { newId } from "@licet/platform/ids";
import { type Harness, startHarness } from "./harness.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await harness.metering().start();
});
afterAll(() => harness.stop());

test("an instance whose partition another one has counted on from leaves that to it and continues behind", async () => {
  const customerId = "stale";
  const partition = partitionOf(`tradsys/${customerId}`, topicOf(UsageTrackedSchema).partitions);
  const track = (count: number) => {
    const events = Array.from({ length: count }, () => ({ id: newId(), customerId, metric: "m", quantity: "1" }));
    return harness.as("tradsys").trackUsageBatch({ events });
  };
  await track(1);
  await harness.metering().drain();
  // As the other instance leaves it: the next five events are counted there.
  await asSystem(harness.database.databases, (tx) =>
    tx
      .updateTable("consumer_offset")
      .set((eb) => ({ next_offset: eb("next_offset", "+", 5n) }))
      .where("partition", "=", partition)
      .execute(),
  );
  await track(5);
  await harness.metering().drain();
  await track(2);
  await harness.metering().drain();
  const { totals } = await harness.as("tradsys").getUsageStats({ customerId });
  expect(totals).toMatchObject([{ metric: "m", events: 3n }]);
});
