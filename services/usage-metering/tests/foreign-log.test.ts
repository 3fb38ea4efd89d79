import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { UsageTrackedSchema } from "@licet/contracts/licet/metering/v1/metering_events_pb";
import { asSystem } from "@licet/platform/database/database";
import { partitionOf } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { newId } from "@licet/platform/ids";
import { acceptLog } from "../src/log.ts";
import { type Harness, startHarness } from "./harness.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await harness.metering().start();
});
afterAll(() => harness.stop());

/** Puts another log into the place of the one that is read, in which the stored offset is that of a later event. */
async function exchangeLog(partition: number): Promise<void> {
  await harness.log.asSuperuser((client) => client.query("UPDATE log_id SET id = gen_random_uuid()"));
  await asSystem(harness.database.databases, (tx) =>
    tx
      .updateTable("consumer_offset")
      .set((eb) => ({ next_offset: eb("next_offset", "+", 5n) }))
      .where("partition", "=", partition)
      .execute(),
  );
}

test("another log is not read on from the offsets of the former one, until an operator accepts it", async () => {
  const customerId = "foreign";
  const partition = partitionOf(`tradsys/${customerId}`, topicOf(UsageTrackedSchema).partitions);
  const track = (count: number) => {
    const events = Array.from({ length: count }, () => ({ id: newId(), customerId, metric: "m", quantity: "1" }));
    return harness.as("tradsys").trackUsageBatch({ events });
  };
  const counted = async () => {
    const { totals } = await harness.as("tradsys").getUsageStats({ customerId });
    return totals[0]?.events;
  };
  await track(1);
  await harness.metering().drain();
  const former = await harness.bus.id();

  await exchangeLog(partition);
  await track(6);
  // What begins to read refuses; what reads already goes on nowhere when its place turns out to be wrong.
  const other = await harness.another();
  await expect(other.start()).rejects.toThrow(
    /from the event log postgres:.*, and the bus is .*licet events accept-log/,
  );
  await expect(harness.metering().drain()).rejects.toThrow(/licet events accept-log/);
  expect(await counted()).toBe(1n);

  const id = await harness.bus.id();
  const url = harness.database.url("licet_system");
  expect(await acceptLog(url, id)).toBe(former);
  expect(await acceptLog(url, id)).toBe(id);
  await harness.metering().drain();
  expect(await counted()).toBe(7n);
});
