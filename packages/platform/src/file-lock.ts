import { DatabaseSync } from "node:sqlite";

/** A lock on a file, held until `release` or until the process ends, in whatever way it ends. */
export interface FileLock {
  release(): void;
}

/** What SQLite reports when another connection holds the lock. */
const SQLITE_BUSY = 5;

/**
 * Takes the lock that the file `path` stands for; the file is created when absent and stays behind, empty.
 *
 * Node has no `flock`. A file holding a process id is no substitute: it outlives `kill -9`, ids are reused, and taking over
 * a stale one races. SQLite's exclusive transaction is a lock of the operating system, which the kernel frees by itself.
 *
 * @returns undefined when another holder (in this process or another one) has it.
 * @throws Error naming the path when the file cannot be opened.
 */
export function tryLockFile(path: string): FileLock | undefined {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: 0 });
    // A journal in memory: a lock writes nothing, so nothing is left beside the file.
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (error) {
    database?.close();
    const { errcode, message } = error as Error & { errcode?: number };
    if (errcode === SQLITE_BUSY) return undefined;
    throw new Error(`cannot lock ${path}: ${message}`, { cause: error });
  }
  const held = database;
  return { release: () => held.close() };
}
