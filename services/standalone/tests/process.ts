import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { PATIENT_MS } from "@licet/platform/testing/patient";
import type { RunInfo } from "../src/run-file.ts";

/** What the line of `--json` holds. */
export type Ready = RunInfo & { readonly dataDir: string };

/** A standalone process that serves. */
export interface Running {
  readonly ready: Ready;
  /**
   * Sends a signal; resolves with the exit code (null after SIGKILL) when the process is gone.
   * @throws Error with what it said when it ended as one that failed.
   */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** How a process ended that never served. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const running = new Set<ChildProcess>();

/** Runs a program of this service from its source. */
export function run(program: "main" | "status", args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
  const path = fileURLToPath(new URL(`../src/${program}.ts`, import.meta.url));
  const { DATABASE_URL: _, ...inherited } = process.env;
  const child = spawn(process.execPath, ["-C", "licet-src", path, ...args], {
    env: { ...inherited, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

/** Runs a program to its end. */
export async function outcome(
  program: "main" | "status",
  args: readonly string[],
  env?: NodeJS.ProcessEnv,
): Promise<Ended> {
  const child = run(program, args, env);
  const [stdout, stderr, [code]] = await Promise.all([
    textOf(child.stdout),
    textOf(child.stderr),
    once(child, "close"),
  ]);
  return { code, stdout, stderr };
}

/** Starts Licet on free ports and waits until it serves. @throws Error with what it said when it ends before. */
export async function start(...args: string[]): Promise<Running> {
  const child = run("main", ["--json", "--grpc-port", "0", "--web-port", "0", "--metrics-port", "0", ...args]);
  const stderr = textOf(child.stderr);
  const line = await firstLine(child);
  if (line === undefined) throw new Error(`Licet ended before it served: ${await stderr}`);
  return {
    ready: JSON.parse(line) as Ready,
    async end(signal) {
      const gone = once(child, "exit");
      child.kill(signal);
      const [code] = await gone;
      if (code !== 0 && signal !== "SIGKILL") throw new Error(`Licet ended with ${code} at ${signal}: ${await stderr}`);
      return code;
    },
  };
}

/** Ends what a failed test left behind. */
export async function endAll(): Promise<void> {
  for (const child of running) {
    const gone = once(child, "exit");
    child.kill("SIGTERM");
    await gone;
  }
}

function textOf(stream: ChildProcess["stdout"]): Promise<string> {
  return stream === null ? Promise.resolve("") : text(stream);
}

async function firstLine({ stdout }: ChildProcess): Promise<string | undefined> {
  let output = "";
  for await (const chunk of stdout ?? []) {
    output += chunk;
    const end = output.indexOf("\n");
    if (end >= 0) return output.slice(0, end);
  }
  return undefined;
}

/** Calls a method as a script would, in Connect JSON; the answer or the error, as JSON. */
export async function call(ready: Ready, key: string, method: string, request: object): Promise<Answer> {
  const response = await fetch(`${ready.webUrl}/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": key, "connect-timeout-ms": `${PATIENT_MS}` },
    body: JSON.stringify(request),
  });
  return (await response.json()) as Answer;
}

/** Any JSON object; tests say what they expect in it. */
export type Answer = Readonly<Record<string, unknown>>;

/** The key of a tenant's role. @throws Error when there is none. */
export function keyOf({ apiKeys }: RunInfo, tenant: string, role: string): string {
  const key = apiKeys[tenant]?.[role];
  if (key === undefined) throw new Error(`there is no key of ${tenant}.${role}`);
  return key;
}
