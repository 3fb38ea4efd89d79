import { parseArgs } from "node:util";
import { ConfigError } from "@licet/platform/config";
import { type ServiceName, serviceNames } from "./services.ts";

/** What one run of the mesh is told by its command line. */
export interface Arguments {
  readonly replicas: Readonly<Record<ServiceName, number>>;
  /** Folder for the data and mesh.json. */
  readonly dataDir: string;
  /** Whether everything that the run leaves on the disk is removed at its end. */
  readonly ephemeral: boolean;
  readonly seed: boolean;
  /** What carries the events. */
  readonly events: "kafka" | "postgres";
  /** Whether usage is counted on from another event log than before. */
  readonly acceptLog: boolean;
  /** Ports that the system chooses, in place of the usual ones. */
  readonly freePorts: boolean;
  /** One line of JSON in place of the table. */
  readonly json: boolean;
}

/** More than this on one host helps nobody. */
const MAX_REPLICAS = 16;

/** What `--help` prints. */
export const USAGE = `The mesh on one host: each service as processes of its own, with its own Kafka,
Redis and Postgres, or those given by the environment.

Usage: pnpm mesh [flags]

  --replicas SERVICE=N   so many processes of a service (default 1; N alone: of
                         each service); may be repeated. Services:
                         ${serviceNames.join(", ")}
  --data-dir DIR         folder for the data and mesh.json (default .licet)
  --events postgres      let the events go through Postgres in place of Kafka
  --accept-log           count usage on from the start of another Kafka than
                         before
  --ephemeral            use a new data folder and remove it at the end
  --no-seed              do not load the demo data
  --free-ports           let the system choose the ports
  --json                 print one line of JSON in place of the table
  --help                 print this

Environment:

  DATABASE_URL           administrator's URL of a Postgres 15 or newer; without
                         it an embedded one is started
  KAFKA_BROKERS          the Kafka that carries the events; without it one is
                         started, which needs Java 17, and Maven the first time
  REDIS_URL              the cache that the replicas share; without it a Redis
                         is started where redis-server is installed
  LICET_DATABASE_PREFIX  prefix of the databases' names (default licet)

Everything else in the environment is passed on to the services;
docs/settings.md lists what they can be told.
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
  const replicas: Record<ServiceName, number> = { licensing: 1, validation: 1, "usage-metering": 1, billing: 1 };
  for (const text of given.replicas) {
    const [, name, count] = /^(?:([a-z-]+)=)?(\d{1,3})$/.exec(text) ?? [];
    const named = serviceNames.filter((service) => name === undefined || service === name);
    const number = Number(count ?? 0);
    if (number < 1 || number > MAX_REPLICAS || named.length === 0) {
      const right = `it should be SERVICE=N, N from 1 to ${MAX_REPLICAS}, SERVICE one of ${serviceNames.join(", ")}`;
      problems.push(`--replicas: ${JSON.stringify(text)} is not understood; ${right}`);
    }
    for (const service of named) replicas[service] = number;
  }
  const { events } = given;
  if (events !== "kafka" && events !== "postgres") {
    problems.push(`--events: ${JSON.stringify(events)} is not understood; it should be kafka or postgres`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    replicas,
    dataDir: given["data-dir"],
    ephemeral: given.ephemeral,
    seed: !given["no-seed"],
    events: events === "postgres" ? "postgres" : "kafka",
    acceptLog: given["accept-log"],
    freePorts: given["free-ports"],
    json: given.json,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      // `pnpm mesh -- --json` passes the dashes on.
      args: args.filter((arg) => arg !== "--"),
      options: {
        replicas: { type: "string", multiple: true, default: [] },
        "data-dir": { type: "string", default: ".licet" },
        events: { type: "string", default: "kafka" },
        "accept-log": { type: "boolean", default: false },
        ephemeral: { type: "boolean", default: false },
        "no-seed": { type: "boolean", default: false },
        "free-ports": { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    const [sentence] = (error as Error).message.split(/\.?(?:\s|$)(?=[A-Z])/);
    throw new ConfigError([`${sentence}; --help lists the flags`]);
  }
}
