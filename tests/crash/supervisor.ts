import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { findPostmaster } from "@licet/platform/database/postmaster";
import { until } from "@licet/platform/testing/until";

const START_TIMEOUT_MS = 180_000;

/** How the process is ended, or ends itself. */
export type Fault = "process" | "postgres" | "during start" | "after append" | "after commit";

/** Runs one standalone process and starts it again whenever it ended, until it is stopped. */
export interface Supervisor {
  /** Faults so far, by kind. */
  readonly faults: Readonly<Record<Fault, number>>;
  /** Causes one fault and returns once the process serves again. `begun` is called once nothing more is needed but calls. */
  cause(fault: Fault, begun: () => void): Promise<void>;
  /** What `run.json` says, by its path such as `apiKeys.platform.operator`. */
  runFile(field: string): string;
  /** Ends the process as an operator would, by SIGTERM; returns its exit code. */
  stop(): Promise<number | null>;
  /** Ends whatever still runs, by SIGKILL. */
  destroy(): Promise<void>;
}

/**
 * Starts a standalone process on a data folder, through `victim.ts`.
 *
 * @param ports - free ports; a new process takes over the ones of the old
 * @param random - where in the start a fault hits
 */
export async function supervise(
  dataDir: string,
  ports: { grpc: number; web: number; metrics: number },
  random: () => number,
): Promise<Supervisor> {
  const faults: Record<Fault, number> = {
    process: 0,
    postgres: 0,
    "during start": 0,
    "after append": 0,
    "after commit": 0,
  };
  let child = launch(dataDir, ports);
  const startedAt = performance.now();
  await serving(child, ports.web, dataDir);
  const startMs = performance.now() - startedAt;

  const kill = async (victim: ChildProcess): Promise<void> => {
    const gone = victim.exitCode === null && victim.signalCode === null ? once(victim, "exit") : undefined;
    victim.kill("SIGKILL");
    await gone;
  };
  const ended = async (victim: ChildProcess): Promise<void> => {
    if (victim.exitCode === null && victim.signalCode === null) await once(victim, "exit");
  };

  return {
    faults,
    async cause(fault, begun) {
      faults[fault] += 1;
      if (fault === "after append" || fault === "after commit") await arm(child, fault);
      begun();
      if (fault === "postgres") return killPostgres(dataDir);
      if (fault === "process" || fault === "during start") await kill(child);
      await ended(child);
      if (fault === "during start") {
        child = launch(dataDir, ports);
        await delay(random() * startMs);
        await kill(child);
      }
      child = launch(dataDir, ports);
      await serving(child, ports.web, dataDir);
    },
    runFile(field) {
      let value: unknown = readRunFile(dataDir);
      for (const name of field.split(".")) value = (value as Record<string, unknown>)[name];
      return String(value);
    },
    async stop() {
      const gone = once(child, "exit");
      child.kill("SIGTERM");
      const [code] = (await gone) as [number | null];
      return code;
    },
    async destroy() {
      await kill(child);
      const postgres = await findPostmaster(path.join(dataDir, "postgres/cluster"));
      if (postgres !== undefined) process.kill(postgres, "SIGKILL");
    },
  };
}

/** Has the process end itself at the next call of the fault's kind. */
async function arm(child: ChildProcess, fault: Fault): Promise<void> {
  const armed = once(child, "message");
  child.send(fault);
  await armed;
}

/** The process starts its Postgres again by itself. */
async function killPostgres(dataDir: string): Promise<void> {
  const cluster = path.join(dataDir, "postgres/cluster");
  const pid = await findPostmaster(cluster);
  if (pid === undefined) throw new Error(`no Postgres runs on ${cluster}`);
  process.kill(pid, "SIGKILL");
  await until("Postgres is there again", async () => ![undefined, pid].includes(await findPostmaster(cluster)));
}

function launch(dataDir: string, ports: { grpc: number; web: number; metrics: number }): ChildProcess {
  const victim = fileURLToPath(new URL("./victim.ts", import.meta.url));
  const args = [dataDir, `${ports.grpc}`, `${ports.web}`, `${ports.metrics}`];
  return spawn(process.execPath, ["-C", "licet-src", victim, ...args], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
}

/** Waits until the process answers and has written its run file. */
async function serving(child: ChildProcess, webPort: number, dataDir: string): Promise<void> {
  const giveUpAt = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    const up = await fetch(`http://127.0.0.1:${webPort}/health`).then(
      (response) => response.ok,
      () => false,
    );
    if (up && readRunFile(dataDir)?.pid === child.pid) return;
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`it ended with ${child.exitCode}`);
    if (performance.now() > giveUpAt) throw new Error(`it did not serve within ${START_TIMEOUT_MS} ms`);
    await delay(20);
  }
}

/** What `run.json` says; undefined before the first start is done. */
function readRunFile(dataDir: string): Record<string, unknown> | undefined {
  const file = path.join(dataDir, "run.json");
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>) : undefined;
}
