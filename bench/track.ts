import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { TrackUsageBatchRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { createLicet } from "@licet/sdk";
import { type Child, startChild } from "./child.ts";
import { type Benchmark, median, type Row } from "./report.ts";
import type { TrackServerReport } from "./track-server.ts";

const ROUNDS = 5;
/** Calls that are timed together; as many fit into memory at once. */
const CALLS = 200_000;
/** Events that go through the whole way, in each round. */
const EVENTS = 50_000;
const BATCH = 1_000;
const FLUSH_MS = 60_000;

const event = { customerId: "customer-4711", metric: "api_calls", quantity: 1, feature: "egx_access" };

/** What tracking costs the program that does it, while it waits for it and behind its back. */
export const track: Benchmark = {
  about: "track() of the SDK: what a call takes against an empty one, and what an event costs the process in all",
  async run() {
    const server = startChild("track-server.ts", [], 1);
    try {
      return [await measureCalls(), await measureWhole(server)];
    } finally {
      await server.stop();
    }
  },
};

/**
 * The call alone: nobody can be reached, so that nothing else happens beside it. CPU time, that of collecting what it
 * allocates included, as other work on the machine must not count.
 */
async function measureCalls(): Promise<Row> {
  const nothing = (_event: object): boolean => true;
  const [baseline, ours]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    const track = { capacity: 262_144, closeTimeoutMs: 0 };
    const licet = createLicet({ mode: "remote", address: "127.0.0.1:1", apiKey: "none", track });
    // What a connection does at first is not what is measured.
    await licet.flush(100);
    baseline.push(await cpuPerEvent(CALLS, async () => callAll(nothing)));
    ours.push(await cpuPerEvent(CALLS, async () => callAll(licet.track)));
    await licet.close();
  }
  const row = { baseline: median(baseline), ours: median(ours) };
  return { name: "a call of track()", ...row, unit: "ns of CPU", target: "≤ 1,000 ns", met: row.ours <= 1_000 };
}

function callAll(call: (of: typeof event) => boolean): void {
  for (let i = 0; i < CALLS; i++) if (!call(event)) throw new Error(`call ${i} was turned away`);
}

/** All that an event costs: the call, its encoding, its part of a request, against the generated code's encoding alone. */
async function measureWhole(server: Child): Promise<Row> {
  const { port } = await server.ask<TrackServerReport>("report");
  const licet = createLicet({ mode: "remote", address: `127.0.0.1:${port}`, apiKey: "none" });
  const [baseline, ours]: [number[], number[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++) {
    const generated = await cpuPerEvent(EVENTS, async () => encodeAll());
    const whole = await cpuPerEvent(EVENTS, async () => {
      for (let i = 0; i < EVENTS; i++) if (!licet.track(event)) throw new Error(`event ${i} was turned away`);
      if (!(await licet.flush(FLUSH_MS))) throw new Error("not all events were delivered");
    });
    // The first round warms up.
    if (round === 0) continue;
    baseline.push(generated);
    ours.push(whole);
  }
  const { tracked, delivered } = licet.trackCounts();
  await licet.close();
  const { events } = await server.ask<TrackServerReport>("report");
  if (events !== tracked || delivered !== tracked) throw new Error(`${tracked} were tracked and ${events} arrived`);
  const row = { baseline: median(baseline), ours: median(ours) };
  const target = "≤ 2 × generated code's encoding alone";
  return { name: "an event in all", ...row, unit: "ns of CPU", target, met: row.ours <= 2 * row.baseline };
}

function encodeAll(): void {
  for (let done = 0; done < EVENTS; done += BATCH) {
    const events = Array.from({ length: BATCH }, (_, i) => ({
      ...event,
      id: `a-run-of-twenty-bytes-${done + i}`,
      source: "sdk",
      quantity: "1",
      occurredAt: timestampFromMs(Date.now()),
    }));
    toBinary(TrackUsageBatchRequestSchema, create(TrackUsageBatchRequestSchema, { events }));
  }
}

async function cpuPerEvent(events: number, work: () => Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1e3) / events;
}
