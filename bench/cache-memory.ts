import { startChild } from "./child.ts";
import type { MemoryReport, MemoryRequest } from "./memory-process.ts";
import { type Benchmark, median, type Row } from "./report.ts";

const sizes = [1_000, 100_000, 1_000_000];
const rounds = 3;
const maxBytes = 110;
/** What the pauses of two processes differ by in any case: of 1,000 customers a collection sees hardly anything. */
const maxPauses = 1.1;

/**
 * What a customer with one ordinary license takes in memory beyond its id, and how long a full collection stops the
 * process. Both stores are filled with what the log brings, in a new process each time; the baseline keeps the snapshots
 * as the objects that were decoded.
 */
export const cacheMemory: Benchmark = memoryOf("a cached customer", "cache-memory-process.ts");

/** The same of what the SDK holds in `local` mode, filled with what a watch brings. */
export const sdkMemory: Benchmark = memoryOf("a customer of the SDK", "sdk-memory-process.ts");

function memoryOf(what: string, file: string): Benchmark {
  return {
    about: `bytes ${what} beyond its id, and full collections, at ${sizes.join(", ")}; against plain objects`,
    async run() {
      const rows: Row[] = [];
      for (const customers of sizes) rows.push(...(await compare(file, customers)));
      return rows;
    },
  };
}

async function compare(file: string, customers: number): Promise<Row[]> {
  const reports: Record<MemoryRequest["side"], MemoryReport[]> = { baseline: [], ours: [] };
  for (let round = 1; round <= rounds; round++) {
    for (const side of ["baseline", "ours"] as const) {
      const report = await measure(file, { side, customers });
      reports[side].push(report);
      console.log(
        `${customers} customers, round ${round}, ${side}: ${report.bytesPerCustomer.toFixed(1)} B each, ` +
          `full collection ${report.fullGcMs.toFixed(1)} ms, ` +
          `${(report.askedBytes / 2 ** 20).toFixed(1)} MiB more once all were asked about`,
      );
    }
  }
  const middle = (side: MemoryRequest["side"], of: keyof MemoryReport) => median(reports[side].map((one) => one[of]));
  const bytes = { baseline: middle("baseline", "bytesPerCustomer"), ours: middle("ours", "bytesPerCustomer") };
  const pauses = { baseline: middle("baseline", "fullGcMs"), ours: middle("ours", "fullGcMs") };
  return [
    {
      name: `memory, ${customers} customers`,
      ...bytes,
      unit: "B per customer + id",
      target: `≤ ${maxBytes} B`,
      met: bytes.ours <= maxBytes,
    },
    {
      name: `full collection, ${customers} customers`,
      ...pauses,
      unit: "ms",
      target: `≤ ${maxPauses} × plain objects`,
      met: pauses.ours <= maxPauses * pauses.baseline,
    },
  ];
}

async function measure(file: string, request: MemoryRequest): Promise<MemoryReport> {
  const child = startChild(file, [], 0, ["--expose-gc"]);
  try {
    return await child.ask<MemoryReport>(request);
  } finally {
    await child.stop();
  }
}
