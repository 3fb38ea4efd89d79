import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

/** How long a process that got SIGKILL may take to be gone, in milliseconds. */
const KILL_WITHIN_MS = 5_000;

/** Process ids of those, other than this process, whose command line `matches`: program and arguments, a blank between. */
export async function findProcesses(matches: (command: string) => boolean): Promise<number[]> {
  const commands = existsSync("/proc/self/cmdline") ? await readProc() : await askPs();
  return commands.filter(({ pid, command }) => pid !== process.pid && matches(command)).map(({ pid }) => pid);
}

/**
 * Ends by SIGKILL what an earlier process left running, and waits until it is gone. Only for what nobody else may have:
 * whoever calls this holds the data that the command line names.
 *
 * @throws Error when one survives.
 */
export async function killProcesses(matches: (command: string) => boolean): Promise<void> {
  for (const giveUpAt = performance.now() + KILL_WITHIN_MS; ; await delay(20)) {
    const pids = await findProcesses(matches);
    if (pids.length === 0) return;
    if (performance.now() > giveUpAt)
      throw new Error(`the processes ${pids.join(", ")} do not end, not even by SIGKILL`);
    for (const pid of pids) kill(pid);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

interface Command {
  readonly pid: number;
  readonly command: string;
}

async function readProc(): Promise<Command[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  return Promise.all(
    pids.map(async (pid) => {
      // A process that ends while it is looked at has no command line; neither has a zombie.
      const text = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return { pid: Number(pid), command: text.replace(/\0$/, "").replaceAll("\0", " ") };
    }),
  );
}

/** For systems without /proc (macOS). */
async function askPs(): Promise<Command[]> {
  const { stdout } = await promisify(execFile)("ps", ["-axwwo", "pid=,command="], { maxBuffer: 16 * 1024 * 1024 });
  return stdout.split("\n").flatMap((line) => {
    const [, pid, command] = /^\s*(\d+) (.*)$/.exec(line) ?? [];
    return pid === undefined || command === undefined ? [] : [{ pid: Number(pid), command }];
  });
}
