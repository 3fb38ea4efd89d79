import { join } from "node:path";
import { z } from "zod";
import { readIfPresent, writePrivateJson } from "./files.ts";

/** API keys by tenant and role; the operator's is `platform.operator`. */
export type ApiKeys = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** What `run.json` tells those who want to call this Licet. */
export interface RunInfo {
  readonly grpcUrl: string;
  readonly webUrl: string;
  readonly metricsUrl: string;
  readonly apiKeys: ApiKeys;
  /** The process that serves; it may have ended. */
  readonly pid: number;
}

const schema = z.object({
  grpcUrl: z.string(),
  webUrl: z.string(),
  metricsUrl: z.string(),
  apiKeys: z.record(z.string(), z.record(z.string(), z.string())),
  pid: z.number(),
});

/** Path of the run file in a data folder. */
export function runFile(dataDir: string): string {
  return join(dataDir, "run.json");
}

/** What the last run wrote; undefined when there was none or the file is damaged: its keys are then issued anew. */
export async function readRunFile(dataDir: string): Promise<RunInfo | undefined> {
  const text = await readIfPresent(runFile(dataDir));
  if (text === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Replaces the run file. */
export function writeRunFile(dataDir: string, info: RunInfo): Promise<void> {
  return writePrivateJson(runFile(dataDir), info);
}
