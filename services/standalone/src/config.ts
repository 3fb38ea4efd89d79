import { parseArgs } from "node:util";
import { type PublicCallLimits, publicCallSettings, toPublicCallLimits } from "@licet/licensing/config";
import { trustedProxies } from "@licet/mesh/settings";
import { ConfigError, parseConfig } from "@licet/platform/config";
import type { TrustedProxies } from "@licet/platform/rpc/address";
import { z } from "zod";

/** What one run of Licet on one host is told. */
export interface Config {
  /** Folder for the data, `run.json` and `secrets.json`; undefined: a new temporary one. */
  readonly dataDir: string | undefined;
  /** Whether everything that the run leaves on the disk is removed at its end. */
  readonly ephemeral: boolean;
  /** Whether the demo data is loaded. */
  readonly seed: boolean;
  /** The address that the three ports listen on. */
  readonly host: string;
  /** Ports; 0 takes a free one. */
  readonly grpcPort: number;
  readonly webPort: number;
  readonly metricsPort: number;
  /** Administrator's URL of a Postgres server; undefined: an embedded one in the data folder. */
  readonly databaseUrl: string | undefined;
  /** Where spans go, in OTLP over HTTP; undefined: nowhere. */
  readonly otlpEndpoint: string | undefined;
  readonly logLevel: "debug" | "info" | "warn" | "error";
  /** What bounds the calls of installed products; what suits most when absent. */
  readonly publicCalls?: PublicCallLimits;
  /** Whose word about where a call came from is taken; nobody's when absent. */
  readonly trustedProxies?: TrustedProxies | undefined;
}

/** How the program was called: what to run, and how to say that it runs. */
export interface Invocation {
  readonly config: Config;
  /** One line of JSON in place of the banner. */
  readonly json: boolean;
}

/** The default data folder, below the folder that the program is started in. */
export const DEFAULT_DATA_DIR = ".licet";

/** What `--help` prints. */
export const USAGE = `Licet on one host: all services in one process, with its own Postgres.

Usage: pnpm start [flags]

  --grpc-port N      port of gRPC (default 9090; 0 takes a free one)
  --web-port N       port of Connect JSON and gRPC-Web (default 8080)
  --metrics-port N   port of GET /metrics (default 9464)
  --data-dir DIR     folder for the data and run.json (default ${DEFAULT_DATA_DIR})
  --ephemeral        use a new data folder and remove it at the end
  --no-seed          do not load the demo data
  --json             print one line of JSON in place of the banner
  --help             print this

Environment:

  DATABASE_URL       administrator's URL of a Postgres 15 or newer; without it an
                     embedded one is started
  LICET_HOST         address to listen on (default 127.0.0.1)
  LICET_LOG_LEVEL    debug, info, warn (default) or error
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
                     where traces are sent, such as http://localhost:4318/v1/traces
  CALLS_PER_KEY_AND_DAY
                     public calls by one license key in a day (default 1440; 0: any)
  ATTEMPTS_PER_MINUTE
                     calls with keys that are none from one address (default 60)
  TRUSTED_PROXIES    proxies whose x-forwarded-for is believed, such as 10.0.0.0/8

pnpm status shows where it runs, with its API keys.
`;

/** What the environment can tell standalone. */
export const environment = z.object({
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\/[^\s]+$/, "is not a Postgres URL")
    .optional()
    .meta({
      title: "Administrator's URL of a Postgres 15 or newer; without it an embedded one is started.",
      description: "a URL such as postgres://user:password@localhost:5432",
    }),
  LICET_HOST: z
    .string()
    .min(1)
    .default("127.0.0.1")
    .meta({ title: "Address that the ports listen on.", description: "an address of this machine, or 0.0.0.0" }),
  LICET_LOG_LEVEL: z.enum(["debug", "info", "warn", "error"], "is no log level").default("warn").meta({
    title: "What is logged, as JSON lines to standard error.",
    description: "debug, info, warn or error",
  }),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: z
    .url({ protocol: /^https?$/, error: "is not an HTTP URL" })
    .optional()
    .meta({
      title: "Where spans are sent, in OTLP over HTTP; nowhere without it.",
      description: "a URL such as http://localhost:4318/v1/traces",
    }),
  ...publicCallSettings,
  TRUSTED_PROXIES: trustedProxies,
});

const flags = {
  "grpc-port": { type: "string", default: "9090" },
  "web-port": { type: "string", default: "8080" },
  "metrics-port": { type: "string", default: "9464" },
  "data-dir": { type: "string" },
  ephemeral: { type: "boolean", default: false },
  "no-seed": { type: "boolean", default: false },
  json: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
} as const;

/**
 * Reads the command line and the environment.
 *
 * @returns undefined when only help was asked for.
 * @throws ConfigError that names every flag and variable that is wrong.
 */
export function readInvocation(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Invocation | undefined {
  const given = parseFlags(args);
  if (given.help) return undefined;
  const problems: string[] = [];
  const port = (flag: "grpc-port" | "web-port" | "metrics-port"): number => {
    const text = given[flag];
    if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return Number(text);
    problems.push(`--${flag}: ${JSON.stringify(text)} is no port; it should be a whole number from 0 to 65535`);
    return 0;
  };
  const ports = { grpcPort: port("grpc-port"), webPort: port("web-port"), metricsPort: port("metrics-port") };
  const fixed = Object.values(ports).filter((number) => number !== 0);
  if (new Set(fixed).size < fixed.length) {
    problems.push("--grpc-port, --web-port, --metrics-port: two of them are the same; each needs a port of its own");
  }
  const settings = settingsOf(env, problems);
  if (settings?.DATABASE_URL !== undefined && given.ephemeral) {
    problems.push("--ephemeral: cannot remove the data of DATABASE_URL; unset that, or leave --ephemeral away");
  }
  if (settings === undefined || problems.length > 0) throw new ConfigError(problems);
  return {
    json: given.json,
    config: {
      ...ports,
      dataDir: given["data-dir"] ?? (given.ephemeral ? undefined : DEFAULT_DATA_DIR),
      ephemeral: given.ephemeral,
      seed: !given["no-seed"],
      host: settings.LICET_HOST,
      databaseUrl: settings.DATABASE_URL,
      otlpEndpoint: settings.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
      logLevel: settings.LICET_LOG_LEVEL,
      publicCalls: toPublicCallLimits(settings),
      trustedProxies: settings.TRUSTED_PROXIES,
    },
  };
}

function parseFlags(args: readonly string[]) {
  try {
    // `pnpm start -- --json` passes the dashes on.
    return parseArgs({ args: args.filter((arg) => arg !== "--"), options: flags, strict: true }).values;
  } catch (error) {
    const [sentence] = (error as Error).message.split(/\.?(?:\s|$)(?=[A-Z])/);
    throw new ConfigError([`${sentence}; --help lists the flags`]);
  }
}

/** The environment's part, its problems added to those of the flags. */
function settingsOf(env: Readonly<Record<string, string | undefined>>, problems: string[]) {
  try {
    return parseConfig(environment, env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    problems.push(...error.problems);
    return undefined;
  }
}
