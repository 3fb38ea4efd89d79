import { parseArgs } from "node:util";
import { cacheHit } from "./cache-hit.ts";
import { cacheMemory, sdkMemory } from "./cache-memory.ts";
import { held } from "./held.ts";
import { importFile } from "./import.ts";
import { ingest } from "./ingest.ts";
import { overload } from "./overload.ts";
import { growth, provision } from "./provision.ts";
import { type Benchmark, printCircumstances, printRows } from "./report.ts";
import { revocation } from "./revocation.ts";
import { sdkDecide } from "./sdk-decide.ts";
import { seats } from "./seats.ts";
import { stream } from "./stream.ts";
import { tail } from "./tail.ts";
import { track } from "./track.ts";
import { checkFeatures, unary } from "./unary.ts";
import { watch } from "./watch.ts";

const benchmarks: Readonly<Record<string, Benchmark>> = {
  unary,
  stream,
  "check-features": checkFeatures,
  "cache-memory": cacheMemory,
  "cache-hit": cacheHit,
  tail,
  revocation,
  watch,
  held,
  overload,
  provision,
  growth,
  seats,
  "sdk-decide": sdkDecide,
  "sdk-memory": sdkMemory,
  track,
  ingest,
  import: importFile(100_000, 10 * 60_000),
  "import-1m": importFile(1_000_000, 60 * 60_000),
};

/** `pnpm bench NAME [--json]`, `pnpm bench --list`. The exit code says whether it ran, not whether a target was met. */
async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { list: { type: "boolean", default: false }, json: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  if (values.list) {
    for (const [name, { about }] of Object.entries(benchmarks)) console.log(`${name.padEnd(12)} ${about}`);
    return;
  }
  const [name = ""] = positionals;
  const benchmark = Object.hasOwn(benchmarks, name) ? benchmarks[name] : undefined;
  if (benchmark === undefined || positionals.length !== 1) {
    throw new Error(`usage: pnpm bench NAME [--json], where NAME is one of: ${Object.keys(benchmarks).join(", ")}`);
  }
  printCircumstances(name, benchmark);
  printRows(await benchmark.run(), values.json);
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
