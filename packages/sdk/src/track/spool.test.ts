import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, expect, jest, test } from "@jest/globals";
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
  onInherited: () => undefined,
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
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
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
  const spool = await openSpool({ folder }, { ...unexpected, onDamaged: (events) => void told.push(events) });
  await spool.append(batch([1, 2, 3]));
  const [name = ""] = readdirSync(folder).filter((file) => file.endsWith(".usage"));
  truncateSync(path.join(folder, name), 30);
  expect(await spool.next()).toBeUndefined();
  expect(told).toEqual([3]);
  await spool.append(batch([4]));
  expect(await drain(spool)).toEqual([4]);
  await spool.close();
});

/** A folder with a segment that groups of these numbers were appended to, and where each group begins and ends. */
async function written(groups: readonly number[][]) {
  const folder = newFolder();
  const spool = await openSpool({ folder }, unexpected);
  const ends: number[] = [];
  let file = "";
  for (const numbers of groups) {
    await spool.append(batch(numbers));
    const [name = ""] = readdirSync(folder).filter((one) => one.endsWith(".usage"));
    file = path.join(folder, name);
    ends.push(readFileSync(file).length);
  }
  const content = readFileSync(file);
  return { folder, file, content, ends, spool };
}

/** What a spool says of a folder and its segment, once it has this content. */
async function reopened(folder: string, file: string, content: Buffer) {
  writeFileSync(file, content);
  const told: number[] = [];
  let inherited = 0;
  const onInherited = (events: number) => {
    inherited = events;
  };
  const spool = await openSpool({ folder }, { onInherited, onDamaged: (events) => void told.push(events) });
  const { events } = spool;
  const found = await drain(spool);
  expect(found).toHaveLength(events);
  await spool.close();
  return { found, told, inherited };
}

test("of what the disk damaged anywhere while nothing ran, the other groups are found, the loss is told, the file kept", async () => {
  const groups = [[1, 2], [3], [4, 5, 6], [7]];
  const { folder, file, content, ends, spool } = await written(groups);
  await spool.close();
  const mark = "licet-usage-1\n".length;
  await fc.assert(
    fc.asyncProperty(fc.nat(content.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      // A mark of another version is refused, and tested below.
      fc.pre(at !== "licet-usage-".length);
      const bytes = Buffer.from(content);
      bytes[at] = (bytes[at] ?? 0) ^ flip;
      const { found, told, inherited } = await reopened(folder, file, bytes);
      const bad = at < mark ? -1 : ends.findIndex((end) => at < end);
      expect(found).toEqual(groups.filter((_, i) => i !== bad).flat());
      const aside = readdirSync(folder);
      for (const name of aside) rmSync(path.join(folder, name));
      const begins = bad < 1 ? mark : (ends[bad - 1] ?? 0);
      expect(inherited).toBe(found.length + (told[0] ?? 0));
      // A length that leads behind the end of the file is what a crash leaves of the last group.
      const looksTorn = bad === groups.length - 1 && at < begins + 4 && told.length === 0;
      if (at < mark || looksTorn) {
        expect(told).toEqual([]);
        return;
      }
      // In a damaged header the number of events may be wrong, or not fit to anything.
      expect(told).toEqual(at < begins + 8 ? [expect.any(Number)] : [groups[bad]?.length]);
      expect(aside).toEqual([`${path.basename(file)}.damaged`]);
    }),
    { numRuns: 150 },
  );
});

test("a file of which nothing can be read is put aside and told, and of such files the newest four are kept", async () => {
  const { folder, content, spool } = await written([[1], [2, 3]]);
  await spool.close();
  const bad = Buffer.concat([content.subarray(0, 14), Buffer.alloc(content.length, "no group ")]);
  for (let i = 1; i <= 6; i++) {
    const { found, told } = await reopened(folder, path.join(folder, `00000000000${i}.usage`), bad);
    expect([found, told]).toEqual([[], [0]]);
  }
  const kept = [3, 4, 5, 6].map((i) => `00000000000${i}.usage.damaged`);
  expect(readdirSync(folder)).toEqual(kept);
  expect(readFileSync(path.join(folder, "000000000006.usage.damaged"))).toEqual(bad);
});

test("what the disk damages while it runs costs only the group that it is in", async () => {
  const { file, content, ends, spool } = await written([[1, 2], [3, 4, 5], [6]]);
  content.write("!", (ends[0] ?? 0) + 20);
  const told: [number, string][] = [];
  jest.spyOn(unexpected, "onDamaged").mockImplementation((...damage) => void told.push(damage));
  writeFileSync(file, content);
  expect(await drain(spool)).toEqual([1, 2, 6]);
  expect(told).toEqual([[3, file]]);
  await spool.append(batch([7]));
  expect(await drain(spool)).toEqual([7]);
  await spool.close();
  jest.restoreAllMocks();
});

test("a write that failed costs nothing of what is written after it", async () => {
  const handle = await open(root, "r");
  await handle.close();
  const failNext = (method: "datasync" | "truncate") =>
    jest.spyOn(Object.getPrototypeOf(handle), method).mockRejectedValueOnce(new Error("EIO") as never);

  const folder = newFolder();
  const spool = await openSpool({ folder }, unexpected);
  for (let round = 0; round < 3; round++) {
    failNext("datasync");
    await expect(spool.append(batch([1]))).rejects.toThrow("EIO");
  }
  await spool.append(batch([1]));
  expect(await drain(spool)).toEqual([1]);

  // More than a segment, which can't be emptied afterwards.
  const numbers = Array.from({ length: 400 }, (_, i) => i);
  await spool.append(batch(numbers, 2_500));
  await spool.append(batch([500], 2_500));
  failNext("truncate");
  await expect(drain(spool)).rejects.toThrow("EIO");
  await spool.append(batch([2]));
  expect(await drain(spool)).toEqual([2]);
  expect(spool.events).toBe(0);
  await spool.close();
  expect(readdirSync(folder)).toEqual([]);
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
