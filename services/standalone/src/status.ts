import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { tryLockFile } from "@licet/platform/file-lock";
import { DEFAULT_DATA_DIR } from "./config.ts";
import { isAlive, lockFile } from "./data-dir.ts";
import { type RunInfo, readRunFile } from "./run-file.ts";

const USAGE = `Shows where Licet runs, with its API keys.

Usage: pnpm status [-o table|env|json] [--data-dir DIR]

  -o table   for reading (default)
  -o env     shell variables: eval "$(pnpm -s status -o env)"
  -o json    the content of run.json
`;

const formats: Readonly<Record<string, (run: RunInfo) => string>> = {
  table: formatTable,
  env: formatEnv,
  json: (run) => `${JSON.stringify(run, undefined, 2)}\n`,
};

try {
  const { values } = parseArgs({
    // `pnpm status -- -o env` passes the dashes on.
    args: process.argv.slice(2).filter((arg) => arg !== "--"),
    options: {
      output: { type: "string", short: "o", default: "table" },
      "data-dir": { type: "string", default: DEFAULT_DATA_DIR },
      help: { type: "boolean", default: false },
    },
  });
  const format = formats[values.output];
  if (format === undefined) {
    throw new Error(`--output: ${JSON.stringify(values.output)} is no format; it should be table, env or json`);
  }
  process.stdout.write(values.help ? USAGE : format(await running(resolve(values["data-dir"]))));
} catch (error) {
  process.stderr.write(`licet status: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

/** @throws Error in one sentence when none runs on the data folder. */
async function running(dataDir: string): Promise<RunInfo> {
  if (!isTaken(dataDir)) throw new Error(`no Licet runs on ${dataDir}; \`pnpm start\` starts one`);
  const run = await readRunFile(dataDir);
  // A start replaces the file of the run before it when it is done.
  if (run === undefined || !isAlive(run.pid)) throw new Error(`the Licet on ${dataDir} is still starting; try again`);
  return run;
}

/** Whether a process holds the folder's lock. Nothing is created where there is nothing. */
function isTaken(dataDir: string): boolean {
  const path = lockFile(dataDir);
  if (!existsSync(path)) return false;
  const lock = tryLockFile(path);
  lock?.release();
  return lock === undefined;
}

function formatTable(run: RunInfo): string {
  const rows = Object.entries(run.apiKeys).flatMap(([tenant, keys]) =>
    Object.entries(keys).map(([role, key]) => ({ tenant, role, key })),
  );
  const width = (name: "tenant" | "role") => Math.max(name.length, ...rows.map((row) => row[name].length));
  const line = ({ tenant, role, key }: { tenant: string; role: string; key: string }) =>
    `${tenant.padEnd(width("tenant"))}  ${role.padEnd(width("role"))}  ${key}`;
  return [
    `Licet runs as process ${run.pid}.`,
    "",
    `gRPC     ${run.grpcUrl}`,
    `Web      ${run.webUrl}`,
    `Metrics  ${run.metricsUrl}`,
    "",
    line({ tenant: "TENANT", role: "ROLE", key: "API KEY" }),
    ...rows.map(line),
    "",
  ].join("\n");
}

function formatEnv(run: RunInfo): string {
  const variables: [string, string][] = [
    ["LICET_GRPC_URL", run.grpcUrl],
    ["LICET_WEB_URL", run.webUrl],
    ["LICET_METRICS_URL", run.metricsUrl],
    ["LICET_PID", String(run.pid)],
  ];
  for (const [tenant, keys] of Object.entries(run.apiKeys)) {
    for (const [role, key] of Object.entries(keys)) variables.push([variableName(tenant, role), key]);
  }
  return variables.map(([name, value]) => `export ${name}='${value}'\n`).join("");
}

/** `LICET_API_KEY_TRADSYS_ADMIN`; tenants may hold characters that names of variables may not. */
function variableName(tenant: string, role: string): string {
  return `LICET_API_KEY_${tenant}_${role}`.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_");
}
