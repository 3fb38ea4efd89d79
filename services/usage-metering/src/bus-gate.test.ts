import { expect, test } from "@jest/globals";
import { platformError } from "@licet/platform/errors";
import { createLogger } from "@licet/platform/logging";
import { createBusGate } from "./bus-gate.ts";

const logger = createLogger({ level: "silent", name: "test" });
const refusal = { code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE", retryAfterMs: 1_000 };

/** A gate before a bus whose publications end as the test says, in their order. */
function gateWithBus() {
  const publications: PromiseWithResolvers<void>[] = [];
  const bus = {
    publish: () => {
      const publication = Promise.withResolvers<void>();
      publications.push(publication);
      return publication.promise;
    },
  };
  return { gate: createBusGate(bus, logger), publications };
}

const fail = (publication: PromiseWithResolvers<void> | undefined) =>
  publication?.reject(platformError("DEPENDENCY_UNAVAILABLE", "gone"));

test("while the bus is down, one publication at a time is tried, and one that succeeds opens the gate", async () => {
  const { gate, publications } = gateWithBus();
  const first = gate.offer([], 60_000);
  fail(publications[0]);
  await expect(first).rejects.toMatchObject(refusal);

  const second = gate.offer([], 60_000);
  await expect(gate.offer([], 60_000)).rejects.toMatchObject(refusal);
  expect(publications).toHaveLength(2);
  fail(publications[1]);
  await expect(second).rejects.toMatchObject(refusal);

  const third = gate.offer([], 60_000);
  publications[2]?.resolve();
  await third;
  const fourth = gate.offer([], 60_000);
  const fifth = gate.offer([], 60_000);
  expect(publications).toHaveLength(5);
  for (const publication of publications) publication.resolve();
  await Promise.all([fourth, fifth]);
});

test("a caller who waits no longer is refused; that alone doesn't show that the bus is down", async () => {
  const { gate, publications } = gateWithBus();
  await expect(gate.offer([], 1)).rejects.toMatchObject(refusal);
  const next = gate.offer([], 60_000);
  expect(publications).toHaveLength(2);
  for (const publication of publications) publication.resolve();
  await next;
});

test("what is no outage is passed on and leaves the gate open", async () => {
  const { gate, publications } = gateWithBus();
  const refused = gate.offer([], 60_000);
  publications[0]?.reject(new RangeError("records[0]: too large"));
  await expect(refused).rejects.toThrow(RangeError);
  const [one, other] = [gate.offer([], 60_000), gate.offer([], 60_000)];
  for (const publication of publications) publication.resolve();
  await Promise.all([one, other]);
});

test("a caller who repeats at once, in the same process, does not keep the bus from answering", async () => {
  const { gate, publications } = gateWithBus();
  const first = gate.offer([], 60_000);
  fail(publications[0]);
  await expect(first).rejects.toMatchObject(refusal);
  const trying = gate.offer([], 60_000);
  let answered = false;
  setTimeout(() => {
    answered = true;
    publications[1]?.resolve();
  }, 1);
  let refusals = 0;
  for (; !answered && refusals < 10_000; refusals++) {
    await gate.offer([], 60_000).catch((error: unknown) => expect(error).toMatchObject(refusal));
  }
  await trying;
  expect(refusals).toBeLessThan(10_000);
});
