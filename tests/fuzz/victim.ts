import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startEmbeddedPostgres } from "@licet/platform/database/embedded";
import { asAdministrator } from "@licet/platform/database/roles";
import { createLogger } from "@licet/platform/logging";

/** How many handlers run, and how many may, by kind of call. */
export interface Handlers {
  readonly running: number;
  readonly max: number;
}

/** A standalone process with the demo data, on a Postgres of its own, measured from the outside. */
export interface Victim {
  readonly grpcPort: number;
  readonly webPort: number;
  /** The key of a tenant's role. */
  key(tenant: string, role: string): string;
  readonly alive: boolean;
  /** Lines that it logged as errors. */
  readonly errors: readonly string[];
  /** Resident memory, in MB. */
  rss(): number;
  /** Collects garbage until resident memory is at most `goal` MB or time is up; what it is then. */
  settle(goal: number, timeoutMs: number): Promise<number>;
  /** Handlers by kind, from its metrics. */
  handlers(): Promise<Readonly<Record<string, Handlers>>>;
  /** The status of `GET /health`; undefined when there is no answer. */
  health(): Promise<number | undefined>;
  /** Runs SQL as superuser in its licensing database. */
  sql<T>(text: string): Promise<T[]>;
  /** Runs `work` while nobody can read or write a table of that database. */
  locked(table: string, work: () => Promise<void>): Promise<void>;
  /** Ends it as an operator would; its exit code. */
  stop(): Promise<number | null>;
}

/** What `--json` prints, as far as it matters here. */
interface Ready {
  readonly grpcUrl: string;
  readonly webUrl: string;
  readonly metricsUrl: string;
  readonly apiKeys: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

const logged = createLogger({ level: "silent", name: "fuzz" });

/** Starts one, with planted bugs where named, and waits until it serves. */
export async function startVictim(bugs: readonly string[] = []): Promise<Victim> {
  const folder = mkdtempSync(path.join(tmpdir(), "licet-fuzz-"));
  const postgres = await startEmbeddedPostgres({
    dataDir: path.join(folder, "postgres"),
    ephemeral: true,
    logger: logged,
  });
  const child = launch(path.join(folder, "data"), postgres.url, bugs);
  const errors = collect(child);
  const line = await firstLine(child);
  if (line === undefined) {
    await postgres.stop();
    throw new Error(`the victim ended before it served: ${errors.join("\n")}`);
  }
  const ready = JSON.parse(line) as Ready;
  const { pid = 0 } = child;
  const licensingUrl = new URL("/licet_licensing", postgres.url).href;
  return {
    grpcPort: Number(new URL(ready.grpcUrl).port),
    webPort: Number(new URL(ready.webUrl).port),
    key: (tenant, role) => ready.apiKeys[tenant]?.[role] ?? "",
    get alive() {
      return child.exitCode === null && child.signalCode === null;
    },
    errors,
    rss: () => residentMb(pid),
    settle: (goal, timeoutMs) => settle(child, pid, goal, timeoutMs),
    handlers: () => readHandlers(ready.metricsUrl),
    health: () =>
      fetch(`${ready.webUrl}/health`, { signal: AbortSignal.timeout(10_000) }).then(
        ({ status }) => status,
        () => undefined,
      ),
    sql: (text) => asAdministrator(licensingUrl, async (client) => (await client.query(text)).rows),
    locked: (table, work) =>
      asAdministrator(licensingUrl, async (client) => {
        await client.query(`BEGIN; LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
        await work().finally(() => client.query("COMMIT"));
      }),
    async stop() {
      const gone = child.exitCode === null && child.signalCode === null ? once(child, "exit") : undefined;
      child.kill("SIGTERM");
      await gone;
      await postgres.stop();
      rmSync(folder, { recursive: true, force: true });
      return child.exitCode;
    },
  };
}

function launch(dataDir: string, databaseUrl: string, bugs: readonly string[]): ChildProcess {
  const main = fileURLToPath(import.meta.resolve("@licet/standalone/main"));
  const preload = new URL("./preload.ts", import.meta.url).href;
  const flags = ["--json", "--data-dir", dataDir, "--grpc-port", "0", "--web-port", "0", "--metrics-port", "0"];
  return spawn(process.execPath, ["-C", "licet-src", "--expose-gc", "--import", preload, main, ...flags], {
    env: {
      ...process.env,
      DATABASE_URL: databaseUrl,
      LICET_LOG_LEVEL: "error",
      FUZZ_PLANT: bugs.join(),
    },
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
}

function collect({ stderr }: ChildProcess): string[] {
  const lines: string[] = [];
  if (stderr === null) return lines;
  createInterface({ input: stderr }).on("line", (line) => {
    if (lines.length < 100) lines.push(line);
  });
  return lines;
}

async function firstLine(child: ChildProcess): Promise<string | undefined> {
  if (child.stdout === null) return undefined;
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([once(lines, "line"), once(child, "exit").then(() => [undefined])]);
  return typeof line === "string" ? line : undefined;
}

function residentMb(pid: number): number {
  const status = `/proc/${pid}/status`;
  if (!existsSync(status))
    return Number(execFileSync("ps", ["-o", "rss=", "-p", `${pid}`], { encoding: "utf8" })) / 1024;
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(status, "utf8"))?.[1] ?? 0) / 1024;
}

async function settle(child: ChildProcess, pid: number, goal: number, timeoutMs: number): Promise<number> {
  const giveUpAt = performance.now() + timeoutMs;
  let lowest = residentMb(pid);
  let still = 0;
  // Memory that was freed goes back to the system in steps: done is when no further one comes.
  while (performance.now() < giveUpAt && still < 8) {
    const collected = once(child, "message");
    child.send("collect");
    await Promise.race([collected, delay(2_000)]);
    await delay(150);
    const now = residentMb(pid);
    still = now < lowest - 1 ? 0 : still + 1;
    lowest = Math.min(lowest, now);
    if (now <= goal) return now;
  }
  return residentMb(pid);
}

async function readHandlers(url: string): Promise<Readonly<Record<string, Handlers>>> {
  const text = await (await fetch(url, { signal: AbortSignal.timeout(5_000) })).text();
  const read = (name: string) =>
    new Map(
      [...text.matchAll(new RegExp(`^${name}\\{(.*)\\} (\\d+)`, "gm"))].map(([, labels = "", value]) => {
        const [area, kind] = ["area", "kind"].map((label) => new RegExp(`\\b${label}="([^"]*)"`).exec(labels)?.[1]);
        return [`${area} ${kind}`, Number(value)];
      }),
    );
  const running = read("rpc_server_running_handlers");
  const max = read("rpc_server_max_handlers");
  return Object.fromEntries([...max].map(([kind, most]) => [kind, { running: running.get(kind) ?? 0, max: most }]));
}
