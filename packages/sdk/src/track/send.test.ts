import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Metadata } from "@grpc/grpc-js";
import { expect, test } from "@jest/globals";
import { StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import { TrackUsageBatchRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { invalidArgument, type ServiceError, toStatus } from "@licet/platform/errors";
import type { Connection } from "../connection.ts";
import { fromGrpcStatus } from "../errors.ts";
import { sendOver } from "./send.ts";
import { createTracker, type TrackProblem } from "./tracker.ts";

const hourMs = 3_600_000;
const order = { customerId: "nile", metric: "orders" };

/** An error as it arrives. */
function overTheWire(error: ServiceError): Error {
  const status = toStatus(error);
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
  return fromGrpcStatus({ code: status.code, details: status.message, metadata });
}

/** Usage metering's rule for the time of an event, by a clock of its own that each pause moves. */
function createMeteringWithClock() {
  const counted: string[] = [];
  const clock = { nowMs: Date.parse("2030-06-15T00:00:00Z") };
  const unary = async (_method: unknown, body: Buffer): Promise<void> => {
    const { events } = fromBinary(TrackUsageBatchRequestSchema, body);
    for (const [index, { occurredAt }] of events.entries()) {
      const tooFarMs = (occurredAt === undefined ? 0 : timestampMs(occurredAt)) - clock.nowMs - 60_000;
      if (tooFarMs > 0) {
        const description = "must not lie in the future";
        throw overTheWire(invalidArgument(`events[${index}].occurred_at`, description, tooFarMs));
      }
    }
    counted.push(...events.map(({ id }) => id));
  };
  // Of a connection, sending uses this alone.
  const send = sendOver({ unary } as unknown as Connection);
  const sleep = async (ms: number): Promise<void> => {
    clock.nowMs += Math.max(1, ms);
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { counted, clock, send, sleep };
}

test("what a clock that is ahead has stamped waits until the server takes it, and is told; nothing is refused", async () => {
  const { counted, clock, send, sleep } = createMeteringWithClock();
  const problems: TrackProblem[] = [];
  const tracker = createTracker(
    send,
    { flushIntervalMs: 0, onProblem: (problem) => void problems.push(problem) },
    { now: () => clock.nowMs + 2 * hourMs, random: () => 0.5, sleep },
  );
  for (let i = 0; i < 20; i++) tracker.track(order);
  expect(await tracker.flush(30_000)).toBe(true);
  expect(tracker.counts()).toMatchObject({ tracked: 20, delivered: 20, refused: 0, waiting: 0 });
  expect(counted).toHaveLength(20);
  expect(new Set(problems.map(({ kind }) => kind))).toEqual(new Set(["RETRYING"]));
  expect(problems[0]).toMatchObject({ lost: 0, error: { message: expect.stringContaining("occurred_at") } });
  // It is tried about once a minute, for a server whose clock is set.
  expect(problems.length).toBeLessThanOrEqual(120);
  await tracker.close();
});

test("an event that lies further ahead than a clock can, by a mistake, is refused and costs none of the others", async () => {
  const { counted, clock, send, sleep } = createMeteringWithClock();
  const tracker = createTracker(send, { flushIntervalMs: 0 }, { now: () => clock.nowMs, random: () => 0.5, sleep });
  for (let i = 0; i < 20; i++) {
    tracker.track({ ...order, id: `${i}`, ...(i === 7 && { occurredAt: new Date("2031-06-15") }) });
  }
  expect(await tracker.flush(30_000)).toBe(true);
  expect(tracker.counts()).toMatchObject({ delivered: 19, refused: 1, retries: 0 });
  expect(counted).not.toContain("7");
  await tracker.close();
});
