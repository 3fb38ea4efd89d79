import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { becomesPortFree, findFreePorts } from "../free-ports.ts";
import { killProcesses } from "../processes.ts";
import { startGuarded } from "./guarded.ts";

const STOP_TIMEOUT_MS = 5_000;
/** How long the port of a Redis that was killed may still be taken. */
const FREE_WITHIN_MS = 5_000;

/** A running Redis without persistence. */
export interface RedisServer {
  readonly url: string;
  /** Process id of the server. */
  readonly pid: number;
  /** Resolves with its last output when it has ended by itself. */
  readonly failed: Promise<Error>;
  stop(): Promise<void>;
}

/** What {@link startRedis} can be told. */
export interface RedisOptions {
  /** A folder that the caller alone uses; it stays empty. Absent: a temporary one. */
  readonly dataDir?: string;
  /** TCP port on 127.0.0.1; absent: a free one. */
  readonly port?: number;
}

/** What is missing to run Redis here and how to get it, or undefined when nothing is. */
export function whyNoRedis(): string | undefined {
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  if (folders.some((folder) => existsSync(path.join(folder, "redis-server")))) return undefined;
  return "there is no redis-server (Debian: apt-get install redis-server)";
}

/**
 * Starts the system's Redis on the loopback interface, in memory only. It ends with this process, in whatever way this
 * process ends; should one have been left behind for the folder all the same, it is ended first.
 *
 * @throws Error with its last output when it can't be started.
 */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const dataDir = path.resolve(options.dataDir ?? (await mkdtemp(path.join(tmpdir(), "licet-redis-"))));
  await mkdir(dataDir, { recursive: true });
  await killProcesses((command) => command.startsWith("redis-server ") && command.includes(` --dir ${dataDir} `));
  const [port = 0] = options.port === undefined ? await findFreePorts(1) : [options.port];
  if (!(await becomesPortFree(port, FREE_WITHIN_MS))) {
    throw new Error(`Redis can't have port ${port}: another program listens on it`);
  }
  const ready = Promise.withResolvers<void>();
  // With its own title it could not be found by its folder.
  const args = ["--dir", dataDir, "--set-proc-title", "no", "--port", String(port), "--bind", "127.0.0.1"];
  args.push("--save", "", "--appendonly", "no");
  const server = await startGuarded(["redis-server", ...args], {
    onLine: (line) => {
      if (line.includes("Ready to accept connections")) ready.resolve();
    },
  });
  let stopping = false;
  const failed = server.ended.then(async () => {
    if (stopping) return new Promise<never>(() => undefined);
    return new Error(`Redis has ended by itself: ${server.output.join("; ")}`);
  });
  await Promise.race([ready.promise, failed.then((error) => ready.reject(error))]);
  await ready.promise;
  return {
    url: `redis://127.0.0.1:${port}`,
    pid: server.pid,
    failed,
    async stop() {
      stopping = true;
      await server.stop(STOP_TIMEOUT_MS);
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
    },
  };
}
