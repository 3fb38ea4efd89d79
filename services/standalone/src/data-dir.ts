import { chmod, mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { tryLockFile } from "@licet/platform/file-lock";
import { readRunFile } from "./run-file.ts";

/** A data folder that this process holds. */
export interface DataDir {
  /** Absolute. */
  readonly path: string;
  /** Lets go of it, and removes it when it is ephemeral. */
  release(): Promise<void>;
}

/** Path of the lock that a running Licet holds on its data folder. */
export function lockFile(dataDir: string): string {
  return join(dataDir, "lock");
}

/**
 * Creates the data folder where needed and takes it for this process.
 *
 * @param wanted undefined: a new folder in the system's temporary one.
 * @throws Error in one sentence: taken by another Licet, not writable, or an ephemeral one that holds something already.
 */
export async function takeDataDir(wanted: string | undefined, ephemeral: boolean): Promise<DataDir> {
  const path = wanted === undefined ? await makeTemporary() : resolve(wanted);
  try {
    await mkdir(path, { recursive: true });
    if (ephemeral && (await readdir(path)).length > 0) {
      throw new Error(`--ephemeral removes its data folder, but ${path} is not empty: name a new one`);
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw code === undefined ? error : new Error(`cannot use the data folder ${path}: ${message}`, { cause: error });
  }
  const lock = tryLockFile(lockFile(path));
  if (lock === undefined) {
    const pid = (await readRunFile(path))?.pid;
    const who = pid !== undefined && isAlive(pid) ? ` (process ${pid})` : "";
    throw new Error(`another Licet${who} runs on ${path}: stop it, or choose another folder with --data-dir`);
  }
  return {
    path,
    async release() {
      lock.release();
      if (ephemeral) await rm(path, { recursive: true, force: true });
    },
  };
}

async function makeTemporary(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "licet-"));
  // What is secret in it has its own permissions; started by root, Postgres runs as another user and must pass through.
  await chmod(path, 0o711);
  return path;
}

/** Whether a process with this id exists. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
