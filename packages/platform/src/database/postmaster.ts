import { setTimeout as delay } from "node:timers/promises";
import { findProcesses } from "../processes.ts";

/** How to end a server, from the mildest way on: what to send, and how long to wait for its effect. */
const ENDING: readonly { signal: NodeJS.Signals; waitMs: number }[] = [
  { signal: "SIGINT", waitMs: 2_500 }, // fast shutdown: ends the sessions, writes a checkpoint
  { signal: "SIGQUIT", waitMs: 1_000 }, // immediate: leaves recovery to the next start; nothing committed is lost
  { signal: "SIGKILL", waitMs: 5_000 },
];

/**
 * Ends the Postgres server `pid`; resolves when `gone` says that it has ended.
 *
 * @param keepsData false: nobody reads its data again, so it need not write them out, which takes seconds on a busy disk.
 * @throws Error when the process survives even SIGKILL.
 */
export async function endPostmaster(
  pid: number,
  gone: () => Promise<boolean> | boolean,
  keepsData = true,
): Promise<void> {
  for (const { signal, waitMs } of keepsData ? ENDING : ENDING.slice(1)) {
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
  const [pid] = await findProcesses((command) => {
    const program = command.indexOf(`/postgres -D ${cluster} -h `);
    // Not somebody else's argument, such as that of a shell.
    return program >= 0 && !command.slice(0, program).includes(" -");
  });
  return pid;
}
