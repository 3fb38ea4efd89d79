import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Ready } from "@licet/mesh/process";
import type { Logger } from "@licet/platform/logging";
import type { Plan, ServiceName } from "./services.ts";

/** A replica that has not ended by itself so long after SIGTERM, in milliseconds, is killed. */
export const STOP_WITHIN_MS = 15_000;
/** Starts in a row that may fail before the mesh gives up. */
const MAX_FAILED_STARTS = 5;
/** The pause before a replica is started again, in milliseconds, doubled with each failed start. */
const PAUSE_MS = 200;

/** A process that is started again whenever it ends, until it is stopped. */
export interface Replica {
  readonly plan: Plan;
  /** What the running process said; undefined while there is none that serves. */
  ready(): Ready | undefined;
  /** Ends the process by SIGTERM, after 15 s by SIGKILL. */
  stop(): Promise<void>;
}

/** What {@link startReplica} needs. */
export interface ReplicaOptions {
  readonly plan: Plan;
  readonly env: Readonly<Record<string, string>>;
  readonly logger: Logger;
  /** Called whenever it serves, the first time and after each restart. */
  onReady(): void;
  /** Called when it can't be started any more. */
  onFailed(error: Error): void;
}

/** Starts a replica; it need not serve yet. */
export function startReplica({ plan, env, logger, onReady, onFailed }: ReplicaOptions): Replica {
  const name = `${plan.service} ${plan.number}`;
  const stopping = new AbortController();
  let child: ChildProcess | undefined;
  let ready: Ready | undefined;

  const run = async (): Promise<void> => {
    for (let failures = 0; !stopping.signal.aborted; ) {
      child = launch(plan, env);
      const ended = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
      const line = await Promise.race([firstLine(child), ended.then(() => undefined)]);
      if (line !== undefined) {
        failures = 0;
        ready = JSON.parse(line) as Ready;
        onReady();
      }
      const [code, signal] = await ended;
      ready = undefined;
      if (stopping.signal.aborted) return;
      if (line === undefined && ++failures === MAX_FAILED_STARTS) {
        onFailed(new Error(`${name} can't be started: it ended ${failures} times in a row before it served`));
        return;
      }
      logger.warn({ replica: name, code, signal }, "a replica ended; it is started again");
      await delay(PAUSE_MS * 2 ** failures, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  const running = run().catch(onFailed);

  return {
    plan,
    ready: () => ready,
    async stop() {
      stopping.abort();
      child?.kill("SIGTERM");
      const kill = setTimeout(() => {
        logger.error({ replica: name, limitMs: STOP_WITHIN_MS }, "a replica did not end; it is killed");
        child?.kill("SIGKILL");
      }, STOP_WITHIN_MS);
      await running;
      clearTimeout(kill);
    },
  };
}

/** The file that runs a service as a process. */
export function programOf(service: ServiceName): string {
  return fileURLToPath(import.meta.resolve(`@licet/${service}/main`));
}

function launch({ service }: Plan, env: Readonly<Record<string, string>>): ChildProcess {
  // The administrator's URL is ours; a replica gets those of its roles.
  const { DATABASE_URL: _, ...inherited } = process.env;
  return spawn(process.execPath, [...process.execArgv, programOf(service)], {
    env: { LICET_LOG_LEVEL: "warn", ...inherited, ...env },
    // By the channel it notices when this process dies, in whatever way.
    stdio: ["ignore", "pipe", "inherit", "ipc"],
  });
}

async function firstLine({ stdout }: ChildProcess): Promise<string | undefined> {
  if (stdout === null) return undefined;
  for await (const line of createInterface({ input: stdout })) return line;
  return undefined;
}
