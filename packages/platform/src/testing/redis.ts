import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { describe, test } from "@jest/globals";
import { findFreePort } from "../free-ports.ts";

const program = (process.env.PATH ?? "")
  .split(path.delimiter)
  .map((folder) => path.join(folder, "redis-server"))
  .find(existsSync);

/** A Redis of a test's own, in memory, that can be made to fail. */
export interface TestRedis {
  readonly url: string;
  /** Stops it in the midst of whatever it does, connections open; `thaw` lets it go on. */
  freeze(): void;
  thaw(): void;
  /** Ends it by SIGKILL, unless it has ended. */
  kill(): Promise<void>;
  /** Starts it again, empty, on the same port. */
  restart(): Promise<void>;
}

/**
 * Runs cases that need Redis; says plainly when they are skipped.
 *
 * @param needs `any`: the Redis of `REDIS_URL` will do; `own`: one that the cases may kill.
 */
export function describeRedis(name: string, needs: "any" | "own", cases: () => void): void {
  const wanted = `a redis-server in the PATH${needs === "any" ? ", or REDIS_URL" : ""}`;
  if (program !== undefined || (needs === "any" && process.env.REDIS_URL !== undefined)) {
    describe(name, cases);
  } else if ((process.env.LICET_REQUIRE ?? "").split(",").includes("redis")) {
    test(name, () => {
      throw new Error(`LICET_REQUIRE names redis, but the cases need ${wanted}`);
    });
  } else {
    describe.skip(`${name} (SKIPPED: needs ${wanted})`, cases);
  }
}

/** Starts a Redis on a free port. */
export async function startRedis(): Promise<TestRedis> {
  const port = await findFreePort();
  let child = await run(port);
  const end = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  };
  // Whatever ends the tests must not leave it behind.
  process.once("exit", () => child.kill("SIGKILL"));
  return {
    url: `redis://127.0.0.1:${port}`,
    freeze: () => void child.kill("SIGSTOP"),
    thaw: () => void child.kill("SIGCONT"),
    kill: end,
    async restart() {
      child = await run(port);
    },
  };
}

async function run(port: number): Promise<ChildProcess> {
  const args = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  const child = spawn(program ?? "redis-server", args, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.includes("Ready to accept connections")) {
      child.stdout.resume();
      return child;
    }
  }
  throw new Error("redis-server ended before it was ready");
}
