import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

/** How to end a server, from the mildest way on: what to send, and how long to wait for its effect. */
const ENDING: readonly { signal: NodeJS.Signals; waitMs: number }[] = [
  { signal: "SIGINT", waitMs: 3_000 }, // fast shutdown: ends the sessions, writes a checkpoint
  { signal: "SIGQUIT", waitMs: 1_000 }, // immediate: leaves recovery to the next start; nothing committed is lost
  { signal: "SIGKILL", waitMs: 5_000 },
];

/**
 * Ends the Postgres server `pid`; resolves when `gone` says that it has ended.
 * @throws Error when the process survives even SIGKILL.
 */
export async function endPostmaster(pid: number, gone: () => Promise<boolean> | boolean): Promise<void> {
  for (const { signal, waitMs } of ENDING) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
    for (const until = Date.now() + waitMs; Date.now() < until; await delay(20)) if (await gone()) return;
  }
  throw new Error(`the Postgres process ${pid} does not end, not even by SIGKILL`);
}

/**
 * Process id of the server that runs on the data folder `cluster`, whoever started it.
 *
 * Found by its command line, not by `postmaster.pid`: that file can be damaged, and its process id can have been reused.
 */
export async function findPostmaster(cluster: string): Promise<number | undefined> {
  return existsSync("/proc/self/cmdline") ? findInProc(cluster) : findByPs(cluster);
}

async function findInProc(cluster: string): Promise<number | undefined> {
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    // A process that ends while it is looked at has no command line; neither has a zombie.
    const [program, flag, folder] = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    if (program?.endsWith("/postgres") && flag === "-D" && folder === cluster) return Number(pid);
  }
  return undefined;
}

/** For systems without /proc (macOS). */
async function findByPs(cluster: string): Promise<number | undefined> {
  const { stdout } = await promisify(execFile)("ps", ["-axwwo", "pid=,command="], { maxBuffer: 16 * 1024 * 1024 });
  const line = stdout.split("\n").find((text) => text.includes(`/postgres -D ${cluster} -h `));
  return line === undefined ? undefined : Number.parseInt(line, 10);
}
