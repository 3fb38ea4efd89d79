import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** A program of this folder in a process of its own, which answers one message at a time. */
export interface Child {
  readonly pid: number | undefined;
  /** Sends a message and waits for the answer. @throws Error when the process ends instead. */
  ask<Answer>(message: object | string): Promise<Answer>;
  stop(): Promise<void>;
}

/** Whether processes can be pinned to a core here; without it both sides share all cores. */
export const canPin = spawnSync("taskset", ["-c", "0", "true"]).status === 0;

/** Starts a program of this folder, where possible on one core of its own; `flags` are for Node itself. */
export function startChild(file: string, args: readonly string[], core: number, flags: readonly string[] = []): Child {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const node = [process.execPath, ...flags, "-C", "licet-src", path, ...args];
  const [program = "", ...rest] = canPin ? ["taskset", "-c", String(core), ...node] : node;
  const child = spawn(program, rest, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  return {
    pid: child.pid,
    async ask<Answer>(message: object | string): Promise<Answer> {
      const answer = answerOf(child, file);
      child.send(message);
      // Both sides of a channel are in this folder; the caller knows what it asked for.
      return (await answer) as Answer;
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      // It ends itself then, and writes what Node was asked to: a profile, for one.
      child.disconnect();
      await ended;
    },
  };
}

async function answerOf(child: ChildProcess, file: string): Promise<unknown> {
  const waiting = new AbortController();
  const { signal } = waiting;
  try {
    const ended = once(child, "exit", { signal }).then(() => {
      throw new Error(`${file} ended before it answered`);
    });
    const [answer] = (await Promise.race([once(child, "message", { signal }), ended])) as [unknown];
    return answer;
  } finally {
    waiting.abort();
  }
}

/** The other side of {@link startChild}: answers each message by `handle`. */
export function serveParent(handle: (message: unknown) => Promise<unknown>): void {
  process.on("message", (message) => {
    void handle(message).then((answer) => process.send?.(answer));
  });
  // Nobody is left to answer to.
  process.on("disconnect", () => process.exit(0));
}
