import { parseApiKey } from "@licet/platform/credentials";
import { roles, roleUrl } from "@licet/platform/database/roles";
import { readTrustedProxies, type TrustedProxies } from "@licet/platform/rpc/address";
import { readTlsFiles, type TlsIdentity } from "@licet/platform/rpc/tls";
import { z } from "zod";
import { kafkaFields, withKafkaRules } from "./kafka-settings.ts";

// Every setting has a `title`, what it is for, and a `description`, what would be right; the reference in
// docs/settings.md is printed from both.

/** A setting that holds a TCP port. */
export function port(title: string, byDefault: number) {
  return z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(0, "is negative").max(65_535, "is too large"))
    .default(byDefault)
    .meta({ title, description: "a whole number from 0 to 65535; 0 takes a free one" });
}

/** A setting that holds a URL of a Postgres server or database. */
export function postgresUrl(title: string, example: string) {
  return z
    .string()
    .regex(/^postgres(ql)?:\/\/[^\s]+$/, "is not a Postgres URL")
    .optional()
    .meta({ title, description: `a URL such as ${example}` });
}

const addressRule = z.string().regex(/^\S+:\d+(,\S+:\d+)*$/, "is no address");
const addressDescription = "`host:port`, or many as `ipv4:10.0.0.1:9090,10.0.0.2:9090`";

/** A setting that holds where a service is reached. */
export function address(title: string) {
  return addressRule.meta({ title, description: addressDescription });
}

/** The same of a service that can be done without. */
export function optionalAddress(title: string) {
  return addressRule.optional().meta({ title, description: addressDescription });
}

/** A setting that holds the path of a PEM file. */
function pemFile(title: string) {
  return z
    .string()
    .optional()
    .meta({ title, description: "the path of a PEM file; GRPC_TLS_CA, GRPC_TLS_CERT and GRPC_TLS_KEY or none" });
}

/** A setting that holds a duration in milliseconds. */
function milliseconds(title: string, byDefault: number, max: number) {
  return z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(0, "is negative").max(max, "is too large"))
    .default(byDefault)
    .meta({ title, description: `a whole number of milliseconds from 0 to ${max}` });
}

/** The setting that names the proxies in front of the ports. */
export const trustedProxies = z
  .string()
  .transform((text, context): TrustedProxies => {
    const proxies = readTrustedProxies(text);
    if (proxies !== undefined) return proxies;
    context.addIssue("holds something that is no address and no network");
    return z.NEVER;
  })
  .optional()
  .meta({
    title:
      "Proxies whose word, in `x-forwarded-for`, about where a call came from is taken, by limits of public calls and in the history; nobody's without it.",
    description: "addresses and networks separated by commas, such as 10.0.0.0/8,fd00::/8",
  });

const databaseUrl = postgresUrl(
  "Administrator's URL of the Postgres server; database names and roles are put into it. Replicas do without it.",
  "postgres://user:password@localhost:5432",
);

const databasePrefix = z
  .string()
  .regex(/^[a-z][a-z0-9_]{0,30}$/, "is no prefix of database names")
  .default("licet")
  .meta({
    title: "Prefix of the names of the databases, so that several installations can share a server.",
    description: "lower case letters, digits and underscores",
  });

const busFields = {
  ...kafkaFields,
  EVENT_LOG_URL: postgresUrl(
    "Without Kafka: the event log in Postgres, as the system role; derived from DATABASE_URL without it.",
    "postgres://licet_system:password@localhost:5432/licet_bus",
  ),
  DATABASE_URL: databaseUrl,
  LICET_DATABASE_PREFIX: databasePrefix,
};

/** Where the events are: Kafka, or the log in Postgres. */
export const busSettings = withKafkaRules(z.object(busFields));

/** Values of {@link busSettings}. */
export type BusSettings = z.output<typeof busSettings>;

const settings = z.object({
  LICET_HOST: z
    .string()
    .default("127.0.0.1")
    .meta({ title: "Address that the ports listen on.", description: "an address of this machine, or 0.0.0.0" }),
  GRPC_PORT: port("Port of gRPC, health and reflection.", 9090),
  WEB_PORT: port("Port of Connect JSON, gRPC-Web and GET /health.", 8080),
  METRICS_PORT: port("Port of GET /metrics.", 9464),
  LICET_LOG_LEVEL: z
    .enum(["debug", "info", "warn", "error"], "is no log level")
    .default("info")
    .meta({ title: "What is logged, as JSON lines to standard error.", description: "debug, info, warn or error" }),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: z
    .url({ protocol: /^https?$/, error: "is not an HTTP URL" })
    .optional()
    .meta({
      title: "Where spans are sent, in OTLP over HTTP; nowhere without it.",
      description: "a URL such as http://localhost:4318/v1/traces",
    }),
  MESH_KEY: z
    .string()
    .regex(/^[\w.~+/=-]{32,512}$/, "is no mesh key")
    .refine((key) => parseApiKey(key) === undefined, "has the form of an API key")
    .meta({
      title: "Secret that the services of one mesh share, and by which they know each other.",
      description: "32 to 512 random characters of A-Z a-z 0-9 . _ ~ + / = -, such as `openssl rand -base64 32` prints",
    }),
  GRPC_TLS_CA: pemFile("Certificate authority of the mesh: with it, gRPC between services is mutual TLS."),
  GRPC_TLS_CERT: pemFile("This replica's certificate, for the names that others reach it by."),
  GRPC_TLS_KEY: pemFile("The private key of GRPC_TLS_CERT."),
  GRPC_TLS_NAME: z
    .string()
    .regex(/^[a-z0-9.-]{1,253}$/i, "is no DNS name")
    .optional()
    .meta({
      title: "The name that the certificates of services must carry; the host of their address without it.",
      description: "a DNS name; needed where addresses are given by number",
    }),
  ...busFields,
  MAX_CONCURRENT: z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1, "is less than 1").max(10_000, "is too large"))
    .default(500)
    .meta({ title: "Calls served at once; more are refused.", description: "a whole number from 1 to 10000" }),
  MAX_STREAMS: z.coerce
    .number("is no number")
    .pipe(z.int("is no whole number").min(1, "is less than 1").max(10_000, "is too large"))
    .default(1_000)
    .meta({ title: "Streams served at once; more are refused.", description: "a whole number from 1 to 10000" }),
  TRUSTED_PROXIES: trustedProxies,
  LOOK_AWAY_MS: milliseconds(
    "How long calls are still taken after SIGTERM, while health says NOT_SERVING and balancers look away.",
    1_000,
    4_000,
  ),
});

/** What every service that runs as a process of its own can be told. */
export const processSettings = withKafkaRules(settings)
  .refine((set) => (set.KAFKA_BROKERS ?? set.EVENT_LOG_URL ?? set.DATABASE_URL) !== undefined, {
    path: ["EVENT_LOG_URL"],
    error: "is missing, and KAFKA_BROKERS and DATABASE_URL too",
    when: () => true,
  })
  .refine(({ GRPC_TLS_CA, GRPC_TLS_CERT, GRPC_TLS_KEY }) => allOrNone(GRPC_TLS_CA, GRPC_TLS_CERT, GRPC_TLS_KEY), {
    path: ["GRPC_TLS_CA"],
    error: "is set without GRPC_TLS_CERT and GRPC_TLS_KEY, or these without it",
    when: () => true,
  });

/** Values of {@link processSettings}. */
export type ProcessSettings = z.output<typeof processSettings>;

/** What a service with a database can be told beside. */
export const databaseSettings = z
  .object({
    DATABASE_URL: databaseUrl,
    LICET_DATABASE_PREFIX: databasePrefix,
    DATABASE_APP_URL: postgresUrl(
      "The service's own database as the app role; derived from DATABASE_URL without it.",
      "postgres://licet_app:password@localhost:5432/licet_licensing",
    ),
    DATABASE_SYSTEM_URL: postgresUrl(
      "The service's own database as the system role; derived from DATABASE_URL without it.",
      "postgres://licet_system:password@localhost:5432/licet_licensing",
    ),
    DATABASE_MAX_CONNECTIONS: z.coerce
      .number("is no number")
      .pipe(z.int("is no whole number").min(1, "is less than 1").max(200, "is too large"))
      .default(8)
      .meta({ title: "Connections to the database, of each role at most.", description: "a number from 1 to 200" }),
  })
  .refine(
    ({ DATABASE_URL, DATABASE_APP_URL, DATABASE_SYSTEM_URL }) =>
      DATABASE_URL !== undefined || (DATABASE_APP_URL !== undefined && DATABASE_SYSTEM_URL !== undefined),
    {
      path: ["DATABASE_APP_URL"],
      error: "DATABASE_URL is missing, and DATABASE_APP_URL or DATABASE_SYSTEM_URL too",
      when: () => true,
    },
  );

/** A service's database as the two roles that serve, and how many connections each may have. */
export interface DatabaseConfig {
  readonly database: { readonly appUrl: string; readonly systemUrl: string };
  readonly maxConnections: number;
}

/** The database of a service from its settings. @param name of the database behind the prefix, such as `licensing`. */
export function databaseConfig(set: z.output<typeof databaseSettings>, name: string): DatabaseConfig {
  const database = `${set.LICET_DATABASE_PREFIX}_${name}`;
  const { DATABASE_URL: adminUrl = "" } = set;
  return {
    database: {
      appUrl: set.DATABASE_APP_URL ?? roleUrl(adminUrl, roles.app, database),
      systemUrl: set.DATABASE_SYSTEM_URL ?? roleUrl(adminUrl, roles.system, database),
    },
    maxConnections: set.DATABASE_MAX_CONNECTIONS,
  };
}

/** Reads the TLS files that the settings name; undefined when they name none. */
export async function tlsIdentity(set: ProcessSettings): Promise<TlsIdentity | undefined> {
  const { GRPC_TLS_CA: ca, GRPC_TLS_CERT: cert, GRPC_TLS_KEY: key, GRPC_TLS_NAME: serverName } = set;
  return ca && cert && key ? { ...(await readTlsFiles({ ca, cert, key })), serverName } : undefined;
}

function allOrNone(...values: (string | undefined)[]): boolean {
  return values.every((value) => value === undefined) || values.every((value) => value !== undefined);
}
