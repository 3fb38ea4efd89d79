import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** A program of this folder running as a process of its own. */
export interface TestProgram {
  /** The first line it printed. */
  readonly line: string;
  /** Ends it by SIGKILL and waits for its end. */
  kill(): Promise<void>;
}

/** Starts a TypeScript program of this folder and waits for its first line. @throws Error when it ends before. */
export async function startProgram(file: string, ...args: string[]): Promise<TestProgram> {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const child: ChildProcess = spawn(process.execPath, ["-C", "licet-src", path, ...args], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  if (child.stdout === null) throw new Error("the program has no output");
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([once(lines, "line"), once(child, "exit").then(() => [undefined])]);
  if (typeof line !== "string") throw new Error(`${file} ended before it said anything`);
  return {
    line,
    kill: async () => {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
  };
}
