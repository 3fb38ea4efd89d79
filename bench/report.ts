import { readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";

/** One line of a benchmark's result: ours against its baseline, both from the same run. */
export interface Row {
  readonly name: string;
  readonly baseline: number;
  readonly ours: number;
  readonly unit: string;
  /** What is to be reached, in words. */
  readonly target: string;
  /** Whether this run met the target. */
  readonly met: boolean;
}

/** A benchmark: measures and returns its rows. */
export interface Benchmark {
  /** What is measured and against what, in one sentence. */
  readonly about: string;
  run(): Promise<readonly Row[]>;
}

/** The middle of some figures; of an even number the mean of the two in the middle. */
export function median(figures: readonly number[]): number {
  return quantile(figures, 0.5);
}

/** The value below which a share `q` of the figures lies, interpolated between neighbours. */
export function quantile(figures: readonly number[], q: number): number {
  const sorted = [...figures].sort((a, b) => a - b);
  const place = (sorted.length - 1) * q;
  const below = sorted[Math.floor(place)];
  const above = sorted[Math.ceil(place)];
  if (below === undefined || above === undefined) throw new RangeError("there is no quantile of nothing");
  return below + (above - below) * (place - Math.floor(place));
}

/** Prints what the figures were measured on and with. */
export function printCircumstances(name: string, { about }: Benchmark): void {
  const version = (specifier: string): string => {
    const path = new URL(`node_modules/${specifier}/package.json`, import.meta.url);
    return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
  };
  console.log(`${name}: ${about}`);
  console.log(
    `node ${process.version}, grpc-js ${version("@grpc/grpc-js")}, protobuf-es ${version("@bufbuild/protobuf")}, ` +
      `${availableParallelism()} × ${cpus()[0]?.model.trim() ?? "unknown CPU"}`,
  );
}

/** Prints the rows as a table, and with `json` a line of JSON for each behind it. */
export function printRows(rows: readonly Row[], json: boolean): void {
  console.table(
    rows.map((row) => ({
      name: row.name,
      baseline: figure(row.baseline),
      ours: figure(row.ours),
      unit: row.unit,
      ratio: figure(ratio(row)),
      target: row.target,
      met: row.met,
    })),
  );
  if (!json) return;
  for (const row of rows) {
    const { name, baseline, ours, unit, target, met } = row;
    console.log(JSON.stringify({ name, baseline, ours, unit, ratio: ratio(row), target, met }));
  }
}

function ratio({ baseline, ours }: Row): number {
  return ours / baseline;
}

function figure(value: number): number {
  return Number(value.toPrecision(3));
}
