import type { MemoryReport, MemoryRequest } from "./cache-memory-process.ts";
import { startChild } from "./child.ts";
import { type Benchmark, median, type Row } from "./report.ts";

const sizes = [1_000, 100_000, 1_000_000];
const rounds = 3;
const maxBytes = 110;

/**
 * What a customer with one ordinary license takes in memory beyond its id, and how long a full collection stops the
 * process. Both stores are filled with what the log brings, in a new process each time; the baseline keeps the snapshots
 * as the objects that were decoded.
 */
export const cacheMemory: Benchmark = {
  about: `bytes a cached customer beyond its id, and full collections, at ${sizes.join(", ")}; against plain objects`,
  async run() {
    const rows: Row[] = [];
    for (const customers of sizes) rows.push(...(await compare(customers)));
    return rows;
  },
};

async function compare(customers: number): Promise<Row[]> {
  const reports: Record<MemoryRequest["side"], MemoryReport[]> = { baseline: [], ours: [] };
  for (let round = 1; round <= rounds; round++) {
    for (const side of ["baseline", "ours"] as const) {
      const report = await measure({ side, customers });
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
      target: "≤ plain objects",
      met: pauses.ours <= pauses.baseline,
    },
  ];
}

async function measure(request: MemoryRequest): Promise<MemoryReport> {
  const child = startChild("cache-memory-process.ts", [], 0, ["--expose-gc"]);
  try {
    return await child.ask<MemoryReport>(request);
  } finally {
    await child.stop();
  }
}
