import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { programOf } from "@licet/cli/mesh/replica";
import type { Plan } from "@licet/cli/mesh/services";
import type { Ready } from "@licet/mesh/process";

/** The pause before a replica that ended is started again, in milliseconds. */
const PAUSE_MS = 200;
/** A replica that has not ended so long after SIGTERM, in milliseconds, is killed. */
const STOP_WITHIN_MS = 15_000;

/** One replica of a service as a process; it is started again whenever it ends, as an orchestrator would. */
export interface ChaosReplica {
  /** Such as `licensing-1`. */
  readonly name: string;
  readonly plan: Plan;
  /** What the running process said; undefined while none serves. */
  ready(): Ready | undefined;
  /** Sends a signal to the process, if there is one. */
  signal(signal: NodeJS.Signals): void;
  /** From its next start on, its clock is so many milliseconds ahead. */
  setClock(offsetMs: number): void;
  /** How often it ended by itself after it had served, without a signal of ours. */
  readonly crashes: number;
  /** How it ended where it was told to, by SIGTERM: its exit code, and after how many milliseconds. */
  readonly ends: readonly { readonly code: number | null; readonly ms: number }[];
  stop(): Promise<void>;
}

/** What {@link startChaosReplica} needs. */
export interface ChaosReplicaOptions {
  readonly plan: Plan;
  readonly env: Readonly<Record<string, string>>;
  /** Name of the planted bug, if any. */
  readonly planted: string | undefined;
  /** Folder for its log. */
  readonly folder: string;
}

/** Starts a replica; it need not serve yet. */
export function startChaosReplica({ plan, env, planted, folder }: ChaosReplicaOptions): ChaosReplica {
  const name = `${plan.service}-${plan.number}`;
  const program = programOf(plan.service);
  const preload = new URL("./preload.ts", import.meta.url).href;
  const flags = ["-C", "licet-src", "--disable-warning=TimeoutNegativeWarning", "--import", preload];
  const log = openSync(path.join(folder, `${name}.log`), "a");
  const stopping = new AbortController();
  let clockOffsetMs = 0;
  let child: ChildProcess | undefined;
  let ready: Ready | undefined;
  let provoked = false;
  let toldAt: number | undefined;
  let crashes = 0;
  const ends: { code: number | null; ms: number }[] = [];

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      provoked = false;
      toldAt = undefined;
      child = spawn(process.execPath, [...flags, program], {
        env: {
          PATH: process.env.PATH,
          ...env,
          LICET_LOG_LEVEL: "warn",
          LICET_CHAOS_CLOCK_OFFSET_MS: String(clockOffsetMs),
          ...(planted !== undefined && { LICET_CHAOS_PLANTED: planted }),
        },
        // By the channel it notices when this process dies, in whatever way.
        stdio: ["ignore", "pipe", log, "ipc"],
      });
      const ended = once(child, "exit");
      const line = await Promise.race([firstLine(child), ended.then(() => undefined)]);
      if (line !== undefined) ready = JSON.parse(line) as Ready;
      const [code] = (await ended) as [number | null];
      if (toldAt !== undefined && ready !== undefined) ends.push({ code, ms: Math.round(performance.now() - toldAt) });
      if (ready !== undefined && !provoked && !stopping.signal.aborted) crashes++;
      ready = undefined;
      await delay(PAUSE_MS, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  };
  const running = run();
  const signal = (name: NodeJS.Signals): void => {
    if (name === "SIGKILL" || name === "SIGTERM") provoked = true;
    if (name === "SIGTERM") toldAt ??= performance.now();
    child?.kill(name);
  };
  return {
    name,
    plan,
    ready: () => ready,
    signal,
    ends,
    setClock(offsetMs) {
      clockOffsetMs = offsetMs;
    },
    get crashes() {
      return crashes;
    },
    async stop() {
      stopping.abort();
      signal("SIGCONT");
      signal("SIGTERM");
      const kill = setTimeout(() => signal("SIGKILL"), STOP_WITHIN_MS);
      await running;
      clearTimeout(kill);
    },
  };
}

async function firstLine({ stdout }: ChildProcess): Promise<string | undefined> {
  if (stdout === null) return undefined;
  for await (const line of createInterface({ input: stdout })) return line;
  return undefined;
}
