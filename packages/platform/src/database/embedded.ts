import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { tryLockFile } from "../file-lock.ts";
import { findFreePort } from "../free-ports.ts";
import { exists, give, type Home, nativeFolder, prepareHome, superuserPassword } from "./embedded-files.ts";
import { endPostmaster, findPostmaster } from "./postmaster.ts";

/** What {@link startEmbeddedPostgres} needs. */
export interface EmbeddedPostgresOptions {
  /** Folder for the data; created when absent. */
  readonly dataDir: string;
  /** TCP port on 127.0.0.1; 0 or absent: any free one. */
  readonly port?: number;
  /** Server settings on top of the small defaults, for example `{ fsync: "off" }` for tests. */
  readonly settings?: Readonly<Record<string, string>>;
  /** True: `stop` removes the data. */
  readonly ephemeral?: boolean;
  /** So many crashes within a minute it is brought back from; more are not bad luck. 30 when absent. */
  readonly maxRestartsPerMinute?: number;
  readonly logger: Logger;
}

/** A running embedded Postgres. */
export interface EmbeddedPostgres {
  /** Connection URL of the superuser, to the database `postgres`. */
  readonly url: string;
  /** Process id of the server; changes when the server was restarted after a crash. */
  readonly pid: number;
  /** Resolves with the reason when the server ended by itself and could not be brought back. */
  readonly failed: Promise<Error>;
  /** Ends the server; resolves when it is gone. Safe to call more than once. */
  stop(): Promise<void>;
}

/** The data folder is in use by another live process. */
export class DataFolderInUseError extends Error {
  override readonly name = "DataFolderInUseError";
}

/** Small enough for a laptop; each entry can be overridden. Durability stays at Postgres's defaults: everything on. */
const SETTINGS: Readonly<Record<string, string>> = {
  shared_buffers: "32MB",
  max_connections: "60",
  // No worker processes that an idle server does not need: PG 18's I/O workers, the logical replication launcher.
  io_method: "sync",
  max_logical_replication_workers: "0",
  max_parallel_workers_per_gather: "0",
  max_wal_senders: "0",
  wal_level: "minimal",
  max_wal_size: "256MB",
  jit: "off",
  huge_pages: "off",
  timezone: "UTC",
  log_timezone: "UTC",
  // `log` prints starts, stops and crashes but not the errors of statements: those reach whoever sent the statement.
  log_min_messages: "log",
  log_checkpoints: "off",
};

/** A crash recovery reads at most max_wal_size; this is far above what that takes. */
const START_TIMEOUT_MS = 60_000;
const START_ATTEMPTS = 20;
const RETRY_DELAY_MS = 300;
const MAX_RESTARTS_PER_MINUTE = 30;

/** Start failures that pass: children of a killed server still ending, another program on the port, another kill. */
const PASSING =
  /Address already in use|shared memory block .* is still in use|lock file .* already exists|was killed by SIG/;

/**
 * Starts a Postgres of our own on 127.0.0.1, on new or existing data, and keeps it running: a server that dies is
 * restarted on its port. A server that a killed process left behind on the same data is ended first.
 *
 * @throws DataFolderInUseError when a live process runs a Postgres on this data.
 * @throws Error with one sentence about what is wrong and what to do.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const home = await prepareHome(options.dataDir);
  const lock = tryLockFile(home.lockFile);
  if (lock === undefined) throw new DataFolderInUseError(`another process runs a Postgres on ${home.folder}`);
  try {
    const native = await nativeFolder(home.account);
    const password = await superuserPassword(home);
    await endOrphan(home, options.logger);
    await initialise(home, native, password);
    const server = await Server.start({ home, native, ...options });
    const stop = async () => {
      await server.stop();
      lock.release();
      if (options.ephemeral) await removeData(home, options.dataDir);
    };
    let stopped: Promise<void> | undefined;
    return {
      url: `postgres://postgres:${password}@127.0.0.1:${server.port}/postgres`,
      get pid() {
        return server.pid;
      },
      failed: server.failed,
      stop: () => {
        stopped ??= stop();
        return stopped;
      },
    };
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function removeData(home: Home, dataDir: string): Promise<void> {
  for (const folder of [home.folder, dataDir]) await rm(folder, { recursive: true, force: true });
}

/** Whoever holds the lock owns the data, so any server still on it was left behind. */
async function endOrphan(home: Home, logger: Logger): Promise<void> {
  const pid = await findPostmaster(home.cluster);
  if (pid !== undefined) {
    logger.info({ pid }, "stopping a Postgres that an earlier run left behind");
    await endPostmaster(pid, async () => (await findPostmaster(home.cluster)) !== pid);
  }
  // Stale, damaged or naming a reused process id: Postgres would refuse to start. Its second guard, the shared memory
  // segment keyed by the data folder, still keeps a new server off data that a dying backend has open.
  await rm(join(home.cluster, "postmaster.pid"), { force: true });
}

/** Makes a new database cluster unless there is one; an interrupted try leaves nothing that looks complete. */
async function initialise(home: Home, native: string, password: string): Promise<void> {
  if (await exists(home.cluster)) return;
  const unfinished = join(home.folder, "cluster.new");
  const passwordFile = join(home.folder, "password.init");
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished, { mode: 0o700 });
  await give(unfinished, home.account);
  await writeFile(passwordFile, password, { mode: 0o600 });
  await give(passwordFile, home.account);
  try {
    const args = [`--pgdata=${unfinished}`, "--username=postgres", `--pwfile=${passwordFile}`, "--auth=scram-sha-256"];
    // Independent of the system's locales: sorts by code point, knows the letter case of all of Unicode.
    args.push("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8");
    const child = launch(join(native, "bin", "initdb"), args, unfinished, home);
    const output = collect(child);
    const [code] = await once(child, "close");
    if (code !== 0) throw new Error(`initdb failed on ${home.folder}: ${output.join("; ")}`);
    await rename(unfinished, home.cluster);
  } finally {
    await rm(passwordFile, { force: true });
  }
}

/** Starts a program as the home's account, in a process group of its own: a Ctrl-C is for us, we end it in our order. */
function launch(program: string, args: readonly string[], cwd: string, home: Home): ChildProcess {
  return spawn(program, args, {
    cwd,
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
    // PGPORT, PGOPTIONS and the like are meant for clients of another server.
    env: { PATH: process.env.PATH, LC_ALL: "C" },
    ...home.account,
  });
}

/** The last lines a child wrote to its standard error, for an error message. */
function collect(child: ChildProcess, onLine?: (line: string) => void): string[] {
  const tail: string[] = [];
  if (child.stderr === null) return tail;
  createInterface({ input: child.stderr }).on("line", (line) => {
    tail.push(line);
    if (tail.length > 20) tail.shift();
    onLine?.(line);
  });
  return tail;
}

/** The server process and its supervision. */
class Server {
  readonly failed: Promise<Error>;
  readonly #fail: (error: Error) => void;
  readonly #options: ServerOptions;
  readonly #restarts: number[] = [];
  readonly #endWithUs = () => this.#child.kill("SIGINT");
  #port: number;
  #child: ChildProcess;
  readonly #stopping = new AbortController();
  #restarting: Promise<void> | undefined;

  private constructor(options: ServerOptions, child: ChildProcess, port: number) {
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.failed = promise;
    this.#fail = resolve;
    this.#options = options;
    this.#child = child;
    this.#port = port;
    process.on("exit", this.#endWithUs);
    this.#watch();
  }

  static async start(options: ServerOptions): Promise<Server> {
    const { child, port } = await startServer(options, options.port ?? 0);
    return new Server(options, child, port);
  }

  get port(): number {
    return this.#port;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error("Postgres is being stopped"));
    await this.#restarting;
    process.off("exit", this.#endWithUs);
    const child = this.#child;
    if (ended(child)) return;
    await endPostmaster(this.pid, () => ended(child), !this.#options.ephemeral);
  }

  #watch(): void {
    this.#child.once("exit", (code, signal) => {
      if (this.#stopping.signal.aborted) return;
      this.#options.logger.error({ code, signal }, "Postgres ended by itself; restarting it");
      this.#restarting = this.#restart().catch((cause) => {
        if (this.#stopping.signal.aborted) return;
        this.#fail(new Error("Postgres ended by itself and could not be restarted", { cause }));
      });
    });
  }

  async #restart(): Promise<void> {
    const now = Date.now();
    this.#restarts.push(now);
    while ((this.#restarts[0] ?? now) < now - 60_000) this.#restarts.shift();
    const { maxRestartsPerMinute = MAX_RESTARTS_PER_MINUTE } = this.#options;
    if (this.#restarts.length > maxRestartsPerMinute) throw new Error("too many crashes within a minute");
    await endOrphan(this.#options.home, this.#options.logger);
    this.#child = (await startServer(this.#options, this.#port, this.#stopping.signal)).child;
    this.#watch();
  }
}

interface ServerOptions extends EmbeddedPostgresOptions {
  readonly home: Home;
  readonly native: string;
}

function ended(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** @param signal aborts when the server is not wanted any more. */
async function startServer(
  options: ServerOptions,
  wanted: number,
  signal = new AbortController().signal,
): Promise<{ child: ChildProcess; port: number }> {
  for (let attempt = 1; ; attempt++) {
    signal.throwIfAborted();
    const port = wanted === 0 ? await findFreePort() : wanted;
    try {
      return { child: await tryStart(options, port, signal), port };
    } catch (error) {
      if (attempt === START_ATTEMPTS || !PASSING.test(String(error))) throw error;
    }
    await delay(RETRY_DELAY_MS);
  }
}

async function tryStart(options: ServerOptions, port: number, signal: AbortSignal): Promise<ChildProcess> {
  const { home, native, settings, logger } = options;
  const args = ["-D", home.cluster, "-h", "127.0.0.1", "-p", String(port), "-k", ""];
  for (const [name, value] of Object.entries({ ...SETTINGS, ...settings })) args.push("-c", `${name}=${value}`);
  const child = launch(join(native, "bin", "postgres"), args, home.cluster, home);
  const ready = Promise.withResolvers<void>();
  const tail = collect(child, (line) => {
    logger.debug({ postgres: line }, "Postgres says");
    if (line.includes("database system is ready to accept connections")) ready.resolve();
  });
  child.once("error", ready.reject);
  // `close` comes after the last line, `exit` may come before it.
  child.once("close", (_code, killedBy) => {
    const how = killedBy === null ? "does not start" : `was killed by ${killedBy} while starting`;
    ready.reject(new Error(`Postgres ${how} on ${home.folder}: ${tail.join("; ")}`));
  });
  const giveUp = () => ready.reject(signal.reason);
  signal.addEventListener("abort", giveUp);
  const late = setTimeout(
    () => ready.reject(new Error(`Postgres is not ready after ${START_TIMEOUT_MS / 1000} s: ${tail.join("; ")}`)),
    START_TIMEOUT_MS,
  );
  try {
    await ready.promise;
    return child;
  } catch (error) {
    if (child.pid !== undefined && !ended(child)) await endPostmaster(child.pid, () => ended(child));
    throw error;
  } finally {
    clearTimeout(late);
    signal.removeEventListener("abort", giveUp);
  }
}
