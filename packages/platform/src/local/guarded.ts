import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

/** Lines of a program's output that are kept for the message of a failure. */
const KEPT_LINES = 30;

/** How long to wait for the last of them once the program has ended, in milliseconds. */
const LAST_LINES_MS = 500;

/** What the guard says first, before the process id. */
const PID_LINE = /^licet guards (\d+)$/;

/** The guard's input ends when this process ends, in whatever way; then it ends the program. */
const GUARD = `exec 3<&0
  "$@" </dev/null 3<&- & program=$!
  echo "licet guards $program"
  { read -r _ <&3; kill -9 $program; } & guard=$!
  wait $program; code=$?
  kill $guard; exit $code`;

/** A program that runs beside this process and ends with it at the latest, also when this process is killed. */
export interface GuardedProgram {
  readonly pid: number;
  /** Its last lines. */
  readonly output: readonly string[];
  /** Resolves with the exit code when it has ended, by itself or not; above 128 it was killed by a signal. */
  readonly ended: Promise<number>;
  /** Ends it by SIGTERM, after `withinMs` by SIGKILL, and resolves when it is gone. */
  stop(withinMs: number): Promise<void>;
}

/** What {@link startGuarded} can be told. */
export interface GuardedOptions {
  readonly cwd?: string;
  /** Called with each line of the program's output. */
  readonly onLine?: (line: string) => void;
}

/** Starts a program that may not outlive this process. Ctrl-C does not reach it: it is ended by `stop`. */
export async function startGuarded(command: readonly string[], options: GuardedOptions = {}): Promise<GuardedProgram> {
  const child = spawn("sh", ["-c", GUARD, "sh", ...command], {
    cwd: options.cwd,
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const output: string[] = [];
  const started = Promise.withResolvers<number>();
  eachLine(child, (line) => {
    const pid = PID_LINE.exec(line)?.[1];
    if (pid !== undefined) return started.resolve(Number(pid));
    output.push(line);
    if (output.length > KEPT_LINES) output.shift();
    options.onLine?.(line);
  });
  child.once("error", started.reject);
  const closed = once(child, "close");
  const ended = once(child, "exit").then(async ([code]) => {
    // For its last lines. A child of the program that lives on keeps the pipe open. The wait itself keeps no process.
    await Promise.race([closed, delay(LAST_LINES_MS, undefined, { ref: false })]);
    started.reject(new Error(`${command[0]} was not started: ${output.join("; ")}`));
    return Number(code ?? 255);
  });
  for (const promise of [closed, ended]) promise.catch(() => undefined);
  const pid = await started.promise;
  const signal = (target: number, name: NodeJS.Signals): void => {
    if (child.exitCode === null && child.signalCode === null) send(target, name);
  };
  return {
    pid,
    output,
    ended,
    async stop(withinMs) {
      signal(pid, "SIGTERM");
      const forced = setTimeout(() => signal(pid, "SIGKILL"), withinMs);
      await ended;
      clearTimeout(forced);
    },
  };
}

/** Runs a program to its end. @throws Error with its last lines when it fails, or the signal's reason when that aborts. */
export async function runGuarded(
  command: readonly string[],
  { signal, ...options }: GuardedOptions & { readonly signal?: AbortSignal | undefined },
): Promise<void> {
  signal?.throwIfAborted();
  const program = await startGuarded(command, options);
  const stop = (): void => void program.stop(0);
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  const code = await program.ended;
  signal?.removeEventListener("abort", stop);
  signal?.throwIfAborted();
  if (code !== 0) throw new Error(`${command[0]} ended with exit code ${code}:\n${program.output.join("\n")}`);
}

function send(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    // It has just ended.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function eachLine(child: ChildProcess, take: (line: string) => void): void {
  for (const input of [child.stdout, child.stderr]) {
    if (input !== null) createInterface({ input }).on("line", take);
  }
}
