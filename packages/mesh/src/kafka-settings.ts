import { X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import type { KafkaConnection } from "@licet/platform/events/kafka-client";
import { readTlsFile } from "@licet/platform/rpc/tls";
import { z } from "zod";

function pemFile(title: string, right: string) {
  return z
    .string()
    .optional()
    .meta({ title, description: `the path of a PEM file; ${right}` });
}

/** How Kafka is reached. Titles and descriptions as in settings.ts. */
export const kafkaFields = {
  KAFKA_BROKERS: z
    .string()
    .regex(/^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$/, "is no list of brokers")
    .transform((text): readonly string[] => text.split(","))
    .optional()
    .meta({
      title: "Some brokers of the Kafka that carries the events; the event log in Postgres without it.",
      description: "`host:port`, or many separated by commas",
    }),
  KAFKA_TLS: z.enum(["on", "off"], "is neither on nor off").optional().meta({
    title:
      "Whether the connection to Kafka is TLS; without it, it is where one of KAFKA_TLS_CA, _CERT and _KEY is set.",
    description: "on or off; on without KAFKA_TLS_CA trusts the usual public authorities",
  }),
  KAFKA_TLS_CA: pemFile(
    "Certificate authority that the brokers' certificates must come from, for the hosts in KAFKA_BROKERS.",
    "its certificates, one after the other",
  ),
  KAFKA_TLS_CERT: pemFile("Certificate that is shown to the brokers.", "KAFKA_TLS_CERT and KAFKA_TLS_KEY or neither"),
  KAFKA_TLS_KEY: pemFile("The private key of KAFKA_TLS_CERT.", "KAFKA_TLS_CERT and KAFKA_TLS_KEY or neither"),
  KAFKA_SASL_MECHANISM: z.enum(["plain", "scram-sha-256", "scram-sha-512"], "is no mechanism").optional().meta({
    title: "How to log in at Kafka; no log-in without it.",
    description:
      "plain (with TLS only), scram-sha-256 or scram-sha-512, with KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
  }),
  KAFKA_SASL_USERNAME: z
    .string()
    .optional()
    .meta({ title: "The user that logs in at Kafka.", description: "a name; needed with KAFKA_SASL_MECHANISM" }),
  KAFKA_SASL_PASSWORD: z
    .string()
    .optional()
    .meta({ title: "The password of that user.", description: "a password; needed with KAFKA_SASL_MECHANISM" }),
};

const fields = z.object(kafkaFields);

/** Values of {@link kafkaFields}. */
export type KafkaSettings = z.output<typeof fields>;

const saslNames = ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"] as const;
const fileNames = ["KAFKA_TLS_CA", "KAFKA_TLS_CERT", "KAFKA_TLS_KEY"] as const;

interface Rule {
  readonly name: keyof KafkaSettings;
  readonly error: string;
  broken(set: KafkaSettings): boolean;
}

/** What must not come together. A setting that is absent and should not be is reported as missing, whatever `error` says. */
const rules: readonly Rule[] = [
  ...(["KAFKA_TLS", ...fileNames, ...saslNames] as const).map((name) => ({
    name,
    error: "is set without KAFKA_BROKERS",
    broken: (set: KafkaSettings) => set[name] !== undefined && set.KAFKA_BROKERS === undefined,
  })),
  ...saslNames.map((name) => ({
    name,
    error: "is missing",
    broken: (set: KafkaSettings) => set[name] === undefined && saslNames.some((other) => set[other] !== undefined),
  })),
  {
    name: "KAFKA_TLS_CERT",
    error: "is missing",
    broken: (set) => set.KAFKA_TLS_CERT === undefined && set.KAFKA_TLS_KEY !== undefined,
  },
  {
    name: "KAFKA_TLS_KEY",
    error: "is missing",
    broken: (set) => set.KAFKA_TLS_KEY === undefined && set.KAFKA_TLS_CERT !== undefined,
  },
  {
    name: "KAFKA_TLS",
    error: "is off, although KAFKA_TLS_CA, KAFKA_TLS_CERT or KAFKA_TLS_KEY is set",
    broken: (set) => set.KAFKA_TLS === "off" && hasFiles(set),
  },
  {
    name: "KAFKA_SASL_MECHANISM",
    error: "is plain without TLS, which would show the password to everybody on the way",
    broken: (set) => set.KAFKA_SASL_MECHANISM === "plain" && !usesTls(set),
  },
];

/** Adds to a schema with {@link kafkaFields} what they may not be together. */
export function withKafkaRules<S extends z.ZodObject<typeof kafkaFields>>(schema: S): S {
  return rules.reduce<S>(
    (checked, { name, error, broken }) =>
      checked.refine((set) => !broken(set as KafkaSettings), { path: [name], error, when: () => true }),
    schema,
  );
}

/**
 * The connection that the settings describe, with the files that they name.
 *
 * @throws Error in one sentence that names the setting or the file that can't be used.
 */
export async function kafkaConnection(set: KafkaSettings, brokers: readonly string[]): Promise<KafkaConnection> {
  const {
    KAFKA_SASL_MECHANISM: mechanism,
    KAFKA_SASL_USERNAME: username = "",
    KAFKA_SASL_PASSWORD: password = "",
  } = set;
  return {
    brokers,
    ...(usesTls(set) && { ssl: await tlsOptions(set) }),
    // The compiler does not see that each mechanism takes the same.
    ...(mechanism !== undefined && { sasl: { mechanism, username, password } as NonNullable<KafkaConnection["sasl"]> }),
  };
}

async function tlsOptions(set: KafkaSettings) {
  const [ca, cert, key] = await Promise.all(
    fileNames.map(async (name) => {
      const path = set[name];
      return path === undefined ? undefined : await readTlsFile(path);
    }),
  );
  const options = { ...(ca && { ca: [ca] }), ...(cert && { cert }), ...(key && { key }) };
  try {
    // A secure context passes over an authority that is no certificate.
    if (ca !== undefined) new X509Certificate(ca);
    createSecureContext(options);
  } catch (cause) {
    const named = fileNames.filter((name) => set[name] !== undefined).join(", ");
    throw new Error(`${named} can't be used for TLS: ${(cause as Error).message}`, { cause });
  }
  return options;
}

function hasFiles(set: KafkaSettings): boolean {
  return fileNames.some((name) => set[name] !== undefined);
}

function usesTls(set: KafkaSettings): boolean {
  return set.KAFKA_TLS === "on" || (set.KAFKA_TLS === undefined && hasFiles(set));
}
