/** `pnpm seats [--rounds N] [--callers N] [--seed S] [--plant NAME]`: callers fight for the seats of licenses. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { startEmbeddedPostgres } from "@licet/platform/database/embedded";
import { createLogger } from "@licet/platform/logging";
import { plant } from "../planting.ts";
import { planted } from "./planted.ts";

const USAGE = `Lets many callers fight for the seats of licenses, round by round, and compares what each round left with what is promised.

Usage: pnpm seats [flags]

  --rounds N         how many rounds, a license each (default 10000)
  --callers N        callers of a round, who all begin at once (default 50)
  --seed N           what their plans are drawn from (default: the time)
  --plant NAME       plants a bug, at whose first over-allocation the run ends: ${Object.keys(planted).join(", ")}
  --help             print this

Runs on the Postgres of LICET_TEST_DATABASE_URL (a superuser's URL), else on an embedded one. The last line is the report as
JSON; the exit code is 1 when a promise did not hold.
`;

try {
  const { values } = parseArgs({
    args: process.argv.slice(2).filter((arg) => arg !== "--"),
    options: {
      rounds: { type: "string", default: "10000" },
      callers: { type: "string", default: "50" },
      seed: { type: "string", default: `${Date.now() % 1_000_000}` },
      plant: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const options = {
    rounds: whole("--rounds", values.rounds),
    callers: whole("--callers", values.callers),
    seed: whole("--seed", values.seed),
    untilFound: values.plant !== undefined,
    log: (line: string) => void process.stdout.write(`${line}\n`),
  };
  if (values.plant !== undefined) plant(bugOf(values.plant));
  process.exit((await run(options)) ? 0 : 1);
} catch (error) {
  process.stderr.write(`seats: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(2);
}

async function run(options: Parameters<typeof import("./run.ts").runSeats>[0]): Promise<boolean> {
  const own = process.env.LICET_TEST_DATABASE_URL === undefined ? await startPostgres() : undefined;
  if (own) process.env.LICET_TEST_DATABASE_URL = own.url;
  try {
    // Loaded only now: the bug is in what is loaded after it was planted.
    const { runSeats } = await import("./run.ts");
    const report = await runSeats(options);
    for (const finding of report.findings) process.stdout.write(`FOUND ${finding}\n`);
    process.stdout.write(`${JSON.stringify(report)}\n`);
    return report.overAllocations === 0 && report.findings.length === 0;
  } finally {
    await own?.stop();
  }
}

async function startPostgres() {
  return startEmbeddedPostgres({
    dataDir: await mkdtemp(path.join(tmpdir(), "licet-seats-")),
    ephemeral: true,
    settings: { fsync: "off", synchronous_commit: "off", full_page_writes: "off", max_connections: "200" },
    logger: createLogger({ level: "warn", name: "seats-postgres" }),
  });
}

function bugOf(name: string) {
  const patches = Object.hasOwn(planted, name) ? planted[name] : undefined;
  if (!patches) throw new Error(`--plant: no bug is called ${JSON.stringify(name)}; --help lists them`);
  return patches;
}

function whole(flag: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`${flag}: ${JSON.stringify(text)} should be a whole number`);
  return Number(text);
}
