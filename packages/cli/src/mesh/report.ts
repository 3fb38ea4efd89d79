import { relative } from "node:path";
import type { Ready } from "@licet/mesh/process";
import { readIfPresent } from "@licet/standalone/files";
import type { ApiKeys } from "@licet/standalone/run-file";
import { z } from "zod";
import { formatRows } from "../table.ts";

/** What mesh.json tells those who want to call the mesh or to look into it. */
export interface MeshInfo {
  /** The process that runs all others; it may have ended. */
  readonly pid: number;
  /** By name of the service: where it is, all replicas at once, as clients of the platform take it. */
  readonly addresses: Readonly<Record<string, string>>;
  /** Those that serve. */
  readonly replicas: readonly (Ready & { readonly number: number })[];
  /** Administrator's URL of the Postgres server, for `licet`. */
  readonly databaseUrl: string;
  /** Where the events are; undefined: in the same Postgres. */
  readonly kafkaBrokers: readonly string[] | undefined;
  /** The cache that the replicas share; undefined: none. */
  readonly redisUrl: string | undefined;
  readonly apiKeys: ApiKeys;
}

const former = z.object({
  pid: z.number().optional(),
  replicas: z.array(z.object({ pid: z.number() })).default([]),
  apiKeys: z.record(z.string(), z.record(z.string(), z.string())).default({}),
});

/** What an earlier run wrote; nothing when there was none or the file is damaged: keys are then issued anew. */
export async function readFormer(path: string): Promise<z.output<typeof former>> {
  try {
    return former.parse(JSON.parse((await readIfPresent(path)) ?? "{}"));
  } catch {
    return former.parse({});
  }
}

const METHOD = "licet.validation.v1.ValidationService/ValidateFeature";

/** What a person sees when the mesh is ready. Lines fit into 80 columns. */
export function formatTable(info: MeshInfo, path: string, elapsedMs: number): string {
  const host = (url: string) => new URL(url.replace(/^[a-z]+:/, "http:")).host;
  const header = ["SERVICE", "", "GRPC", "WEB", "METRICS", "PID"];
  const rows = info.replicas.map(({ service, number, grpcUrl, webUrl, metricsUrl, pid }) =>
    [service, number, host(grpcUrl), host(webUrl), host(metricsUrl), pid].map(String),
  );
  return [
    "",
    `The mesh is ready after ${(elapsedMs / 1000).toFixed(1)} s. Ctrl-C ends it.`,
    "",
    formatRows([header, ...rows]).trimEnd(),
    "",
    `Postgres             ${host(info.databaseUrl)}`,
    `Events               ${info.kafkaBrokers ? `Kafka at ${brief(info.kafkaBrokers)}` : "in Postgres"}`,
    `Shared cache         ${info.redisUrl ? `Redis at ${host(info.redisUrl)}` : "none"}`,
    `API keys, addresses  ${relative(process.cwd(), path) || path}`,
    ...question(info),
    "",
    "",
  ].join("\n");
}

/** All brokers, or the first one where a line has no room for more. */
function brief(brokers: readonly string[]): string {
  const all = brokers.join(", ");
  return all.length <= 50 ? all : `${brokers[0]} and ${brokers.length - 1} more`;
}

/** One call to paste, where there is demo data to ask about. */
function question({ replicas, apiKeys }: MeshInfo): string[] {
  const key = apiKeys.tradsys?.service;
  const validation = replicas.find(({ service }) => service === "validation");
  if (key === undefined || validation === undefined) return [];
  return [
    "",
    "May cairo-capital trade on the Egyptian exchange?",
    "",
    "curl -H content-type:application/json \\",
    `-H x-api-key:${key} \\`,
    `-d '{"customer_id": "cairo-capital", "feature": "egx_access"}' \\`,
    `${validation.webUrl}/${METHOD}`,
  ];
}
