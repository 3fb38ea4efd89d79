import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, expect, test } from "@jest/globals";
import { TrackUsageBatchRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { until } from "@licet/platform/testing/until";
import fc from "fast-check";
import type { Send, Sent } from "./delivery.ts";
import type { Batch } from "./encode.ts";
import { createTracker, type TrackOptions, type TrackProblem } from "./tracker.ts";

const root = mkdtempSync(path.join(tmpdir(), "licet-track-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
const newFolder = (): string => path.join(root, `${++folders}`);

/** What the server does with a request: `lost` means that it takes the events and its answer does not arrive. */
type Fate = "accept" | "refuse" | "fail" | "lost";

/** A server that counts each id once, as usage metering does, and does with its requests what it is told. */
function createServer(fates: readonly Fate[] = [], isBad: (id: string) => boolean = () => false) {
  const counted = new Map<string, string>();
  const requests: number[] = [];
  const queue = [...fates];
  const failed = (message: string): Sent => ({ kind: "LATER", error: new Error(message), retryAfterMs: 0 });
  const send: Send = async ({ body }: Batch) => {
    const { events } = fromBinary(TrackUsageBatchRequestSchema, body);
    requests.push(events.length);
    const fate = queue.shift() ?? "accept";
    // As a network would: the answer comes later.
    await new Promise((resolve) => setImmediate(resolve));
    if (fate === "fail") return failed("no connection");
    if (fate === "refuse" || events.some(({ id }) => isBad(id)))
      return { kind: "REFUSED", error: new Error("bad event") };
    for (const { id, quantity } of events) counted.set(id, quantity);
    return fate === "lost" ? failed("the answer was lost") : { kind: "ACCEPTED" };
  };
  const total = () => [...counted.values()].reduce((sum, quantity) => sum + Number(quantity), 0);
  return { send, counted, requests, total };
}

const noPauses = {
  now: Date.now,
  random: () => 0,
  sleep: () => new Promise<void>((resolve) => void setImmediate(resolve)),
};
const atOnce: TrackOptions = { flushIntervalMs: 0 };
const order = { customerId: "nile", metric: "orders" };

test("every event counts once, whatever happens to requests and answers, with and without a spool", async () => {
  const fate = fc.constantFrom<Fate>("accept", "fail", "lost");
  await fc.assert(
    fc.asyncProperty(
      fc.array(fate, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 1_500 }), { minLength: 1, maxLength: 3 }),
      fc.boolean(),
      async (fates, bursts, spooled) => {
        const server = createServer(fates);
        const spool = spooled && { spool: { folder: newFolder() } };
        const tracker = createTracker(server.send, { ...atOnce, closeTimeoutMs: 120_000, ...spool }, noPauses);
        let tracked = 0;
        for (const burst of bursts) {
          for (let i = 0; i < burst; i++) if (tracker.track({ ...order, quantity: 2 })) tracked += 1;
          await new Promise((resolve) => setImmediate(resolve));
        }
        await tracker.close();
        expect(server.counted.size).toBe(tracked);
        expect(server.total()).toBe(2 * tracked);
        expect(tracker.counts()).toMatchObject({ tracked, delivered: tracked, waiting: 0, lost: 0, refused: 0 });
      },
    ),
    { numRuns: 15 },
  );
});

test("what waits goes together: a batch at once when it is full, others after the interval", async () => {
  const server = createServer();
  const tracker = createTracker(server.send, { flushIntervalMs: 60_000 });
  for (let i = 0; i < 2_300; i++) tracker.track(order);
  await until("two full batches are sent", () => server.counted.size === 2_000);
  expect(server.requests).toEqual([1_000, 1_000]);
  expect(tracker.counts().waiting).toBe(300);
  expect(await tracker.flush(120_000)).toBe(true);
  expect(server.requests).toEqual([1_000, 1_000, 300]);
  await tracker.close();
});

test("a full memory turns the newest away, and says so", async () => {
  const answers: ((sent: Sent) => void)[] = [];
  const send: Send = () => new Promise((resolve) => void answers.push(resolve));
  const tracker = createTracker(send, { capacity: 8, flushIntervalMs: 60_000 });
  const taken = Array.from({ length: 10 }, (_, i) => tracker.track({ ...order, id: `${i}` }));
  expect(taken).toEqual([...Array(8).fill(true), false, false]);
  expect(tracker.counts()).toMatchObject({ tracked: 8, turnedAway: 2, waiting: 8 });
  const flushed = tracker.flush(100);
  await until("they are sent", () => answers.length > 0);
  expect(await flushed).toBe(false);
  for (const answer of answers) answer({ kind: "ACCEPTED" });
  await tracker.close();
  expect(tracker.track(order)).toBe(false);
  expect(tracker.counts()).toMatchObject({ delivered: 8, turnedAway: 3, waiting: 0 });
});

test("an event that the server refuses costs none of the others", async () => {
  const bad = new Set(["17", "400", "999"]);
  const server = createServer([], (id) => bad.has(id));
  const problems: TrackProblem[] = [];
  const tracker = createTracker(
    server.send,
    { ...atOnce, onProblem: (problem) => void problems.push(problem) },
    noPauses,
  );
  for (let i = 0; i < 1_000; i++) tracker.track({ ...order, id: `${i}` });
  await tracker.close();
  expect(server.counted.size).toBe(997);
  expect([...bad].filter((id) => server.counted.has(id))).toEqual([]);
  expect(tracker.counts()).toMatchObject({ delivered: 997, refused: 3, waiting: 0 });
  expect(problems.map(({ kind, lost }) => [kind, lost])).toEqual(Array(3).fill(["REFUSED", 1]));
  expect(server.requests.length).toBeLessThan(1 + 3 * 20);
});

test("without a spool, close gives up in time and tells how many are lost", async () => {
  const problems: TrackProblem[] = [];
  const send: Send = async () => ({ kind: "LATER", error: new Error("no connection"), retryAfterMs: 0 });
  const tracker = createTracker(send, { closeTimeoutMs: 200, onProblem: (problem) => void problems.push(problem) });
  for (let i = 0; i < 1_500; i++) tracker.track(order);
  await tracker.close();
  expect(tracker.counts()).toMatchObject({ tracked: 1_500, delivered: 0, lost: 1_500, waiting: 0 });
  expect(problems.reduce((sum, { lost }) => sum + lost, 0)).toBe(1_500);
  expect(problems.filter(({ kind }) => kind === "RETRYING").length).toBeGreaterThan(0);
});

test("with a spool, what close could not deliver is delivered by the next run", async () => {
  const folder = newFolder();
  const options = { ...atOnce, spool: { folder } };
  const first = createServer(Array(1_000).fill("lost"));
  const tracker = createTracker(first.send, { ...options, closeTimeoutMs: 50 });
  for (let i = 0; i < 1_500; i++) tracker.track(order);
  await tracker.close();
  expect(tracker.counts()).toMatchObject({ tracked: 1_500, lost: 0, waiting: 1_500 });

  const second = createServer();
  const next = createTracker(second.send, options);
  next.track(order);
  expect(await next.flush(120_000)).toBe(true);
  expect(next.counts()).toMatchObject({ inherited: 1_500, tracked: 1, delivered: 1_501 });
  // The server that had the events already counts none of them again.
  expect([...second.counted.keys()]).toEqual(expect.arrayContaining([...first.counted.keys()]));
  expect(second.counted.size).toBe(1_501);
  await next.close();
});

test("what the disk damaged between two runs is told, and is in the counts", async () => {
  const folder = newFolder();
  const away: Send = async () => ({ kind: "LATER", error: new Error("no connection"), retryAfterMs: 0 });
  const options = { ...atOnce, spool: { folder } };
  const first = createTracker(away, { ...options, closeTimeoutMs: 20 });
  // Two full batches, of which the disk damages one.
  for (let i = 0; i < 2_000; i++) first.track({ ...order, id: `${i}` });
  await first.close();
  const [name = ""] = readdirSync(folder);
  const file = path.join(folder, name);
  const content = readFileSync(file);
  content.write("damage", 1_000);
  writeFileSync(file, content);

  const server = createServer();
  const problems: TrackProblem[] = [];
  const second = createTracker(server.send, { ...options, onProblem: (problem) => void problems.push(problem) });
  expect(await second.flush(120_000)).toBe(true);
  expect(second.counts()).toMatchObject({ inherited: 2_000, delivered: 1_000, lost: 1_000, waiting: 0 });
  expect(problems).toMatchObject([{ kind: "DAMAGED", lost: 1_000, error: { message: expect.stringContaining(file) } }]);
  expect([server.counted.has("999"), server.counted.has("1000")]).toEqual([false, true]);
  await second.close();
});

test("a spool that can't be had is waited for, and events wait in memory", async () => {
  const folder = newFolder();
  const blocking = path.join(folder, "..", `${path.basename(folder)}`);
  writeFileSync(blocking, "a file where the folder should be");
  const server = createServer();
  const problems: TrackProblem[] = [];
  const options = { spool: { folder }, onProblem: (problem: TrackProblem) => void problems.push(problem) };
  const tracker = createTracker(server.send, { ...atOnce, ...options }, noPauses);
  tracker.track(order);
  await until("it was tried twice", () => problems.length >= 2);
  expect(problems[0]).toMatchObject({ kind: "RETRYING", lost: 0 });
  rmSync(blocking);
  expect(await tracker.flush(120_000)).toBe(true);
  await tracker.close();
  expect(server.counted.size).toBe(1);
});

test("what was taken away from the spool is told, and what is tracked after it is delivered", async () => {
  const folder = newFolder();
  const server = createServer();
  const problems: TrackProblem[] = [];
  const options = { spool: { folder }, onProblem: (problem: TrackProblem) => void problems.push(problem) };
  let isAway = true;
  const send: Send = async (batch, signal) =>
    isAway ? { kind: "LATER", error: new Error("no connection"), retryAfterMs: 0 } : server.send(batch, signal);
  const tracker = createTracker(send, { ...atOnce, ...options }, noPauses);
  // A batch that is being sent, and one that waits on disk.
  for (let i = 0; i < 1_001; i++) tracker.track(order);
  await until("the first one was tried", () => problems.length > 0);
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".usage"))) rmSync(path.join(folder, name));
  isAway = false;
  await until("the loss is told", () => problems.some(({ kind }) => kind === "DAMAGED"));
  tracker.track({ ...order, id: "later" });
  expect(await tracker.flush(120_000)).toBe(true);
  expect(server.counted.has("later")).toBe(true);
  await tracker.close();
});

test.each([
  ["track.capacity", { capacity: 0 }],
  ["track.flushIntervalMs", { flushIntervalMs: 0.5 }],
  ["track.closeTimeoutMs", { closeTimeoutMs: Number.POSITIVE_INFINITY }],
  ["track.source", { source: "s".repeat(256) }],
])("a wrong %s is refused, naming it", (field, options) => {
  expect(() => createTracker(createServer().send, options)).toThrow(
    expect.objectContaining({ violations: [expect.objectContaining({ field })] }),
  );
});
