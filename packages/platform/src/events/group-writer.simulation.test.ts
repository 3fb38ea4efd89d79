import fc from "fast-check";
import { simulation } from "../testing/simulation.ts";
import type { OutgoingRecord } from "./bus.ts";
import { createGroupWriter, type GroupWriter } from "./group-writer.ts";

/** The bounds as the code names them: of one write, and of what waits. */
const bounds = {
  groupRecords: 2_000,
  groupBytes: 4 * 1024 * 1024,
  waitingRecords: 50_000,
  waitingBytes: 64 * 1024 * 1024,
};

/** One call of `write`, and what became of it. */
interface CallOfModel {
  readonly id: number;
  readonly count: number;
  readonly bytes: number;
  settled: "waiting" | "written" | "failed" | "refused";
}

/** Calls in their order, and those that the log has taken up. */
interface Model {
  readonly calls: CallOfModel[];
  underWay: CallOfModel[];
}

interface Real {
  readonly writer: GroupWriter<OutgoingRecord>;
  /** Writes of the log that are under way; each ends by hand. */
  readonly writes: { readonly records: readonly OutgoingRecord[]; readonly end: PromiseWithResolvers<void> }[];
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
// One buffer of a size for all records: only its length counts.
const buffers = new Map<number, Uint8Array>();
const bufferOf = (bytes: number): Uint8Array => {
  const known = buffers.get(bytes) ?? new Uint8Array(bytes);
  buffers.set(bytes, known);
  return known;
};

const waiting = ({ calls }: Model): CallOfModel[] => calls.filter(({ settled }) => settled === "waiting");
const sum = (calls: readonly CallOfModel[], of: "count" | "bytes"): number =>
  calls.reduce((total, call) => total + call[of], 0);

/** Sees that the write that began is the next of the queue: whole calls, in order, no more than a write's bounds. */
function takeUp(model: Model, real: Real): void {
  if (real.writes.length > 1) throw new Error("two writes are under way");
  const [write] = real.writes;
  if (write === undefined || model.underWay.length > 0) return;
  const queue = waiting(model);
  const ids = [...new Set(write.records.map(({ key }) => Number(key)))];
  model.underWay = queue.slice(0, Math.max(ids.length, 1));
  const expected = model.underWay.flatMap(({ id, count }) => Array.from({ length: count }, () => String(id)));
  if (write.records.map(({ key }) => key).join() !== expected.join()) throw new Error("a call was split or overtaken");
  const bounded =
    sum(model.underWay, "count") <= bounds.groupRecords && sum(model.underWay, "bytes") <= bounds.groupBytes;
  if (model.underWay.length > 1 && !bounded) throw new Error("a write is larger than its bounds");
}

type Command = fc.AsyncCommand<Model, Real>;

const write = (count: number, each: number): Command => ({
  check: () => true,
  async run(model, real) {
    const before = waiting(model);
    const call: CallOfModel = { id: model.calls.length, count, bytes: count * each, settled: "waiting" };
    const queued = before.length > model.underWay.length;
    const tooMuch =
      sum(before, "count") + count > bounds.waitingRecords || sum(before, "bytes") + call.bytes > bounds.waitingBytes;
    const value = bufferOf(each);
    const records = Array.from({ length: count }, () => ({ topic: "t", key: String(call.id), headers: {}, value }));
    model.calls.push(call);
    real.writer.write(records).then(
      () => {
        call.settled = "written";
      },
      (error: { reason?: string }) => {
        call.settled = error.reason === "OVERLOADED" ? "refused" : "failed";
      },
    );
    await settled();
    const refused = call.settled === "refused";
    if (refused !== (queued && tooMuch)) throw new Error(`refused: ${refused}, with ${sum(before, "count")} waiting`);
    takeUp(model, real);
  },
  toString: () => `write ${count} of ${each} bytes`,
});

const end = (fails: boolean): Command => ({
  check: ({ underWay }) => underWay.length > 0,
  async run(model, real) {
    const [write] = real.writes.splice(0, 1);
    if (fails) write?.end.reject(new Error("disk full"));
    else write?.end.resolve();
    await settled();
    for (const { id, settled: found } of model.underWay) {
      const expected = fails ? "failed" : "written";
      if (found !== expected) throw new Error(`call ${id} is ${found}, its write is ${expected}`);
    }
    model.underWay = [];
    takeUp(model, real);
  },
  toString: () => (fails ? "fail" : "commit"),
});

const anyCommands = fc.commands<Model, Real, false>(
  [
    fc
      .record({ count: fc.integer({ min: 1, max: 900 }), each: fc.nat(3_000) })
      .map((one) => write(one.count, one.each)),
    fc
      .record({ count: fc.constantFrom(1, 1_999, 2_000, 2_001), each: fc.constantFrom(0, 1) })
      .map((one) => write(one.count, one.each)),
    // So large that the bounds of what waits are reached.
    fc.constant(write(10_000, 0)),
    fc
      .record({ count: fc.constantFrom(4, 16), each: fc.constant(1024 * 1024) })
      .map((one) => write(one.count, one.each)),
    fc.boolean().map(end),
  ],
  { maxCommands: 40, size: "max" },
);

simulation(
  "a group writer keeps order, calls together and its bounds, and tells each caller its own outcome",
  {
    runs: 40,
  },
  () =>
    fc.asyncProperty(anyCommands, async (commands) => {
      const writes: Real["writes"] = [];
      const append = (records: readonly OutgoingRecord[]): Promise<void> => {
        const ending = Promise.withResolvers<void>();
        writes.push({ records, end: ending });
        return ending.promise;
      };
      const model: Model = { calls: [], underWay: [] };
      const real: Real = { writer: createGroupWriter(append), writes };
      await fc.asyncModelRun(() => ({ model, real }), commands);
      let flushed = false;
      const flushing = real.writer.flushed().then(() => {
        flushed = true;
      });
      await settled();
      if (flushed !== (model.underWay.length === 0)) throw new Error("flushed although a write is under way");
      while (model.underWay.length > 0) await end(false).run(model, real);
      await flushing;
      const [left] = waiting(model);
      if (left !== undefined) throw new Error(`call ${left.id} was forgotten`);
    }),
);
