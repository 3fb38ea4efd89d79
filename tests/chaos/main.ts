/** `pnpm chaos`: a mesh of processes, clients that write down what they were told, and faults drawn from a seed. */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createLifecycle } from "@licet/platform/lifecycle";
import { whyNoKafka } from "@licet/platform/local/kafka-release";
import { whyNoRedis } from "@licet/platform/local/redis";
import { createLogger } from "@licet/platform/logging";
import { type Arguments, readArguments, USAGE } from "./arguments.ts";
import { run, type Summary } from "./run.ts";

/** A run takes its faults' time and this much more at most, in milliseconds, for its start, its end and the check. */
const BESIDE_MS = 10 * 60_000;
/** Lines fit into this many columns. */
const COLUMNS = 80;

try {
  const args = readArguments(process.argv.slice(2));
  if (args === undefined) process.stdout.write(USAGE);
  else process.exit(await main(args));
} catch (error) {
  process.stderr.write(`chaos: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(1);
}

async function main(args: Arguments): Promise<number> {
  const lacking = whyNoKafka() ?? whyNoRedis();
  if (lacking !== undefined) throw new Error(lacking);
  const startedAt = performance.now();
  const say = (line: string): void => {
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1).padStart(7);
    process.stdout.write(`${`${seconds} s  ${line}`.slice(0, COLUMNS)}\n`);
  };
  say(`seed ${args.seed}${args.control === undefined ? "" : `, planted: ${args.control.name}`}`);
  const logger = createLogger({ level: "fatal", name: "chaos" });
  const lifecycle = createLifecycle({ logger });
  const ending = new AbortController();
  const folder = await mkdtemp(path.join(tmpdir(), "licet-chaos-"));
  // Else root's Postgres, which runs as another user, would keep its data elsewhere.
  await chmod(folder, 0o755);
  let ended: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    ending.abort(new Error("the run was given up"));
    await lifecycle.shutdown();
    if (args.keep) say(`kept: ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  };
  const end = (): Promise<void> => {
    ended ??= close();
    return ended;
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => void end().then(() => process.exit(130)));
  }
  const late = setTimeout(
    () => {
      process.stderr.write("chaos: the run takes too long; it is given up\n");
      void end().then(() => process.exit(1));
    },
    args.minutes * 60_000 + BESIDE_MS,
  );
  try {
    const { control: planted, ...rest } = args;
    const summary = await run({ ...rest, planted, folder, lifecycle, logger, say, signal: ending.signal });
    await end();
    return report(summary, args);
  } finally {
    clearTimeout(late);
    await end();
  }
}

/** Prints what was found and returns the exit code: of a control, whether the planted bug was caught. */
function report(summary: Summary, { control }: Arguments): number {
  const { differences } = summary;
  for (const { invariant, count, examples } of differences) {
    process.stdout.write(`\n${invariant}: ${count}\n${examples.map((example) => `  ${example}\n`).join("")}`);
  }
  const caught = differences.filter(({ invariant }) => control?.bug.caughtBy.includes(invariant)).length > 0;
  process.stdout.write(`${JSON.stringify(control ? { control: control.name, caught, ...summary } : summary)}\n`);
  return (control === undefined ? differences.length === 0 : caught) ? 0 : 1;
}
