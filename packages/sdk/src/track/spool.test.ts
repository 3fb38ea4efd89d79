import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, expect, test } from "@jest/globals";
import { TrackUsageBatchRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import fc from "fast-check";
import { type Batch, createEncoder } from "./encode.ts";
import { openSpool, type Spool } from "./spool.ts";
import { toPending } from "./usage-event.ts";

const root = mkdtempSync(path.join(tmpdir(), "licet-spool-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
const newFolder = (): string => path.join(root, `${++folders}`);
const unexpected = {
  onDamaged(events: number, file: string): void {
    throw new Error(`${events} events are damaged in ${file}`);
  },
};

/** A batch whose events carry these numbers, each in about so many bytes. */
function batch(numbers: readonly number[], bytes = 60): Batch {
  const fillers = Array.from({ length: Math.ceil(bytes / 250) }, (_, i) => [`filler${i}`, "x".repeat(250)]);
  const event = { customerId: "nile", metric: "orders", dimensions: Object.fromEntries(fillers) };
  const queue = numbers.map((number) => toPending({ ...event, id: `${number}` }, 1, 0));
  return createEncoder("sdk", "run").encode(() => queue.shift());
}

/** The numbers of a batch. */
function numbersOf(of: Batch): number[] {
  return fromBinary(TrackUsageBatchRequestSchema, of.body).events.map(({ id }) => Number(id));
}

async function drain(spool: Spool): Promise<number[]> {
  const found: number[] = [];
  for (let next = await spool.next(); next !== undefined; next = await spool.next()) {
    found.push(...numbersOf(next));
    await spool.drop();
  }
  return found;
}

test("whatever is appended comes out in order, also over restarts; only what was dropped is gone", async () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 40 }).map((append) => ({ append })) },
    { weight: 3, arbitrary: fc.constant("drop" as const) },
    { weight: 1, arbitrary: fc.constant("restart" as const) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const folder = newFolder();
      let spool = await openSpool({ folder }, unexpected);
      let model: number[] = [];
      let last = 0;
      for (const one of steps) {
        if (one === "restart") {
          await spool.close();
          spool = await openSpool({ folder }, unexpected);
          // What was dropped may come again, in front.
          const found = await drain(spool);
          expect(found.slice(found.length - model.length)).toEqual(model);
          model = [];
        } else if (one === "drop") {
          const next = await spool.next();
          expect(next === undefined).toBe(model.length === 0);
          await spool.drop();
          if (next !== undefined) expect(numbersOf(next)).toEqual(model.splice(0, next.count));
        } else {
          const numbers = Array.from({ length: one.append }, () => ++last);
          // Large enough for several segments.
          await spool.append(batch(numbers, 2_500));
          model.push(...numbers);
        }
        expect(spool.events).toBe(model.length);
      }
      expect(await drain(spool)).toEqual(model);
      await spool.close();
      expect(readdirSync(folder)).toEqual([]);
    }),
    { numRuns: 20 },
  );
});

test("of a file that was cut anywhere the whole groups are found, and it is appended to behind them", async () => {
  const folder = newFolder();
  const first = await openSpool({ folder }, unexpected);
  for (const numbers of [[1, 2], [3], [4, 5, 6]]) await first.append(batch(numbers));
  // Left as a crash leaves it; the lock of this process is given up.
  const [name = ""] = readdirSync(folder).filter((file) => file.endsWith(".usage"));
  const content = readFileSync(path.join(folder, name));
  await first.close();
  const lengths = new Set<number>();
  const cuts = Array.from({ length: Math.ceil(content.length / 61) }, (_, i) => 61 * i);
  for (const cut of [...cuts, content.length - 1, content.length]) {
    const again = newFolder();
    await (await openSpool({ folder: again }, unexpected)).close();
    writeFileSync(path.join(again, name), content.subarray(0, cut));
    const spool = await openSpool({ folder: again }, unexpected);
    await spool.append(batch([7]));
    const found = await drain(spool);
    expect([[7], [1, 2, 7], [1, 2, 3, 7], [1, 2, 3, 4, 5, 6, 7]]).toContainEqual(found);
    lengths.add(found.length);
    await spool.close();
  }
  expect(lengths).toEqual(new Set([1, 3, 4, 7]));
});

test("what the disk damages while it runs is told, and the rest goes on", async () => {
  const folder = newFolder();
  const told: number[] = [];
  const spool = await openSpool({ folder }, { onDamaged: (events) => void told.push(events) });
  await spool.append(batch([1, 2, 3]));
  const [name = ""] = readdirSync(folder).filter((file) => file.endsWith(".usage"));
  truncateSync(path.join(folder, name), 30);
  expect(await spool.next()).toBeUndefined();
  expect(told).toEqual([3]);
  await spool.append(batch([4]));
  expect(await drain(spool)).toEqual([4]);
  await spool.close();
});

test("has its bound, and room again once something was delivered", async () => {
  const spool = await openSpool({ folder: newFolder(), maxBytes: 10_000 }, unexpected);
  let appended = 0;
  const fill = async () => {
    for (;;) {
      await spool.append(batch([appended + 1], 250));
      appended += 1;
    }
  };
  await expect(fill()).rejects.toThrow("is full: it has 10000 bytes of usage events that were not delivered yet");
  expect(spool.events).toBe(appended);
  expect(appended).toBeGreaterThan(20);
  await drain(spool);
  await spool.append(batch([1], 250));
  await spool.close();
});

test("belongs to one process at a time, and to none that is gone", async () => {
  const folder = newFolder();
  const spool = await openSpool({ folder }, unexpected);
  await expect(openSpool({ folder }, unexpected)).rejects.toThrow("in use by this process");
  await spool.close();
  // The parent of this process lives; 2^22 is above all ids of Linux.
  writeFileSync(path.join(folder, "owner"), `${process.ppid}`);
  await expect(openSpool({ folder }, unexpected)).rejects.toThrow(`in use by process ${process.ppid}`);
  writeFileSync(path.join(folder, "owner"), `${process.ppid} 1 another-boot`);
  await (await openSpool({ folder }, unexpected)).close();
  writeFileSync(path.join(folder, "owner"), `${2 ** 22 + 1} 1 boot`);
  await (await openSpool({ folder }, unexpected)).close();
});

test("a file of another format is refused and left as it is", async () => {
  const folder = newFolder();
  await (await openSpool({ folder }, unexpected)).close();
  const file = path.join(folder, "000000000001.usage");
  writeFileSync(file, "licet-usage-2\nwhatever comes later");
  await expect(openSpool({ folder }, unexpected)).rejects.toThrow(`${file} is not in this version's format`);
  expect(readFileSync(file, "utf8")).toContain("whatever");
});
