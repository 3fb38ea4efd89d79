import { parseArgs } from "node:util";
import { ConfigError } from "@licet/platform/config";
import { type FaultKind, faultKinds } from "./plan.ts";
import { type PlantedBug, plantedBugs } from "./planted.ts";

/** What one run is told by its command line. */
export interface Arguments {
  readonly seed: number;
  readonly minutes: number;
  readonly only: readonly FaultKind[] | undefined;
  readonly control: { readonly name: string; readonly bug: PlantedBug } | undefined;
  readonly replicas: number;
  readonly rate: number;
  /** Whether journals and logs stay where they are. */
  readonly keep: boolean;
}

/** What `--help` prints. */
export const USAGE = `Breaks a mesh on purpose and compares what it promised with what it kept.

Usage: pnpm chaos [flags]

  --seed S         decides every fault and its moment (default: a random one,
                   which is printed)
  --minutes M      how long faults are let loose (default 1)
  --only F,...     only these faults: ${faultKinds.slice(0, 6).join(", ")},
                   ${faultKinds.slice(6).join(", ")}
  --control NAME   plants a known bug; the exit code is 0 if it was caught:
${Object.keys(plantedBugs)
  .map((name) => `                   ${name}\n`)
  .join("")}  --replicas N     processes of each service (default 2)
  --rate R         usage events a second (default 700)
  --keep           keep journals and logs, and say where they are
  --help           print this

Needs Java 17 and Maven (for Kafka) and redis-server. The last line is a summary
as JSON; the exit code is 0 only if there is no difference.
`;

/**
 * Reads the command line.
 *
 * @returns undefined when only help was asked for.
 * @throws ConfigError that names every flag that is wrong.
 */
export function readArguments(args: readonly string[]): Arguments | undefined {
  const given = parse(args);
  if (given.help) return undefined;
  const problems: string[] = [];
  const number = (flag: "seed" | "minutes" | "replicas" | "rate", least: number, most: number): number => {
    const value = Number(given[flag]);
    if (!(value >= least && value <= most)) {
      problems.push(`--${flag}: ${JSON.stringify(given[flag])} should be a number from ${least} to ${most}`);
    }
    return value;
  };
  const kinds = given.only?.split(",") ?? [];
  for (const kind of kinds) {
    if (!(faultKinds as readonly string[]).includes(kind)) {
      problems.push(`--only: ${JSON.stringify(kind)} is no fault; there are ${faultKinds.join(", ")}`);
    }
  }
  const bug = given.control === undefined ? undefined : plantedBugs[given.control];
  if (given.control !== undefined && bug === undefined) {
    problems.push(`--control: there is no ${JSON.stringify(given.control)}; --help lists them`);
  }
  const seed = number("seed", 0, 2 ** 32 - 1);
  const minutes = given.minutes === undefined ? (bug?.minutes ?? 1) : number("minutes", 0.1, 600);
  const replicas = number("replicas", 1, 4);
  const rate = number("rate", 1, 100_000);
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    seed,
    minutes,
    only: given.only === undefined ? bug?.only : (kinds as FaultKind[]),
    control: bug && { name: given.control ?? "", bug },
    replicas,
    rate,
    keep: given.keep,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      // `pnpm chaos -- --seed 1` passes the dashes on.
      args: args.filter((arg) => arg !== "--"),
      options: {
        seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 32)) },
        minutes: { type: "string" },
        only: { type: "string" },
        control: { type: "string" },
        replicas: { type: "string", default: "2" },
        rate: { type: "string", default: "700" },
        keep: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    const [sentence] = (error as Error).message.split(/\.?(?:\s|$)(?=[A-Z])/);
    throw new ConfigError([`${sentence}; --help lists the flags`]);
  }
}
