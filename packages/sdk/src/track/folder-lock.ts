import { randomUUID } from "node:crypto";
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

/** Folders that this process holds. */
const held = new Set<string>();
/** A lock that a dead process left is taken away and the folder taken; others may try the same at that moment. */
const MAX_ATTEMPTS = 3;

/** A folder that belongs to this process. */
export interface FolderLock {
  /** Gives it up. */
  release(): void;
}

/**
 * Takes a folder for this process alone, by a file in it that names the process. One of a process that is gone is taken
 * over: on Linux that is told by when the process started, elsewhere by its id alone. Processes of other containers and
 * machines can't be seen, and count as gone.
 *
 * @throws {Error} naming the folder and the process when a living one holds it, or what is in the way of the file.
 */
export function lockFolder(folder: string): FolderLock {
  const file = path.join(path.resolve(folder), "owner");
  if (held.has(file)) throw new Error(`${folder} is in use by this process already`);
  // Written whole under a name of its own and then linked: nobody finds a lock that does not name its owner yet.
  const claim = uniqueName(file);
  const own = nameOf(process.pid);
  try {
    writeFileSync(claim, own, { flag: "wx", mode: 0o600 });
    take(folder, file, claim);
  } finally {
    rmSync(claim, { force: true });
  }
  held.add(file);
  return {
    release() {
      if (held.delete(file) && readOwner(file) === own) rmSync(file, { force: true });
    },
  };
}

function take(folder: string, file: string, claim: string): void {
  for (let attempt = 1; ; attempt++) {
    try {
      linkSync(claim, file);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      const owner = readOwner(file);
      if (owner !== undefined && isAlive(owner))
        throw new Error(`${folder} is in use by process ${owner.split(" ")[0]}`);
      if (attempt === MAX_ATTEMPTS) throw error;
      if (owner !== undefined) takeAway(file, owner);
    }
  }
}

/**
 * Takes away the lock of a process that is gone, unless another process has done so and holds the folder now. Only where
 * two find the same old lock, and a third comes in the microseconds in which the new one is away, two have the folder.
 */
function takeAway(file: string, owner: string): void {
  const away = uniqueName(file);
  try {
    renameSync(file, away);
    // Of those who found the same lock one was faster: this is its own, which goes back.
    if (readOwner(away) !== owner) linkSync(away, file);
  } catch (error) {
    // ENOENT: taken away already. EEXIST: somebody has taken the folder while its lock was away.
    if (!["ENOENT", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  } finally {
    rmSync(away, { force: true });
  }
}

function uniqueName(file: string): string {
  return `${file}.${randomUUID()}`;
}

/** What a lock says; undefined: it was given up meanwhile. */
function readOwner(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return undefined;
  }
}

/** A process by its id and, where the system tells, when it started and since which boot of the machine. */
function nameOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Behind the name, which may hold blanks and brackets: field 22 counted from 1, the name being the second.
    const startedAt = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return `${pid} ${startedAt} ${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()}`;
  } catch {
    // Only this process knows elsewhere when it started.
    return pid === process.pid ? `${pid} ${Math.round(performance.timeOrigin)}` : `${pid}`;
  }
}

/** Whether the process that a lock names runs: this one too, but not under an id that came again, as in containers. */
function isAlive(owner: string): boolean {
  const pid = Number(owner.split(" ")[0]);
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  if (pid === process.pid) return owner === nameOf(pid);
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it runs, as somebody else.
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const now = nameOf(pid);
  return now === owner || !now.includes(" ") || !owner.includes(" ");
}
