/** `pnpm fuzz [--seed S] [--seconds N] [--only attack,…] [--bugs NAMES] [--lenient]`, or `pnpm fuzz --differential N [--seed S]`: hostile clients against a standalone process. */
import { parseArgs } from "node:util";
import { runDifferential } from "./differential.ts";
import { attacks, runFuzz } from "./run.ts";

const USAGE = `Attacks a standalone process in every way it knows and judges what came of it.

Usage: pnpm fuzz [flags]

  --seed N           what the random parts begin with (default: the time)
  --seconds N        how long all attacks take together, about (default 120)
  --only NAMES       some attacks, separated by commas
  --bugs NAMES       plants bugs (tests/fuzz/planted.ts), which the run has to find
  --lenient          allows 200 MB in place of 50, and any latency below 30 s
  --differential N   attacks nothing: compares hand decoders and prepared replies with generated code and handlers, for N
                     requests
  --help             print this

Attacks:
${attacks.map(({ name, about }) => `  ${name.padEnd(18)} ${about}`).join("\n")}

The last line is the report as JSON; the exit code is 1 when a promise did not hold.
`;

try {
  const { values } = parseArgs({
    args: process.argv.slice(2).filter((arg) => arg !== "--"),
    options: {
      seed: { type: "string", default: `${Date.now() % 1_000_000}` },
      seconds: { type: "string", default: "120" },
      only: { type: "string" },
      bugs: { type: "string" },
      lenient: { type: "boolean", default: false },
      differential: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const seed = whole("--seed", values.seed);
  if (values.differential !== undefined) {
    const report = await runDifferential(seed, whole("--differential", values.differential));
    for (const difference of report.differences) process.stdout.write(`FOUND ${difference}\n`);
    process.stdout.write(`${JSON.stringify(report)}\n`);
    process.exit(report.differences.length === 0 ? 0 : 1);
  }
  const only = values.only?.split(",");
  const unknown = only?.filter((name) => !attacks.some((attack) => attack.name === name)) ?? [];
  if (unknown.length > 0) throw new Error(`--only: no attack is called ${unknown.join(", ")}; --help lists them`);
  const report = await runFuzz({
    seed,
    seconds: whole("--seconds", values.seconds),
    only,
    bugs: values.bugs?.split(","),
    lenient: values.lenient,
    log: (line) => process.stdout.write(`${line}\n`),
  });
  for (const finding of report.findings) process.stdout.write(`FOUND ${finding}\n`);
  process.stdout.write(`${JSON.stringify(report)}\n`);
  process.exit(report.verdict === "held" ? 0 : 1);
} catch (error) {
  process.stderr.write(`fuzz: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(1);
}

function whole(flag: string, text: string): number {
  if (!/^\d{1,9}$/.test(text))
    throw new Error(`${flag}: ${JSON.stringify(text)} should be a whole number from 0 to 999999999`);
  return Number(text);
}
