import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

/** Folders that this process holds: its own id in a lock file proves nothing where ids come again, as in containers. */
const held = new Set<string>();
/** A lock that a dead process left is removed and taken; others may try the same at that moment. */
const MAX_ATTEMPTS = 3;

/** A folder that belongs to this process. */
export interface FolderLock {
  /** Gives it up. */
  release(): void;
}

/**
 * Takes a folder for this process alone, by a file in it that names the process. One of a process that is gone is taken
 * over: on Linux that is told by when the process started, elsewhere by its id alone.
 *
 * @throws {Error} naming the folder and the process when a living one holds it, or what is in the way of the file.
 */
export function lockFolder(folder: string): FolderLock {
  const file = path.join(path.resolve(folder), "owner");
  if (held.has(file)) throw new Error(`${folder} is in use by this process already`);
  const own = nameOf(process.pid);
  for (let attempt = 1; ; attempt++) {
    try {
      const descriptor = openSync(file, "wx", 0o600);
      writeFileSync(descriptor, own);
      closeSync(descriptor);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      const owner = readOwner(file);
      if (isAlive(owner)) throw new Error(`${folder} is in use by process ${owner.split(" ")[0]}`);
      if (attempt === MAX_ATTEMPTS) throw error;
      rmSync(file, { force: true });
    }
  }
  held.add(file);
  return {
    release() {
      if (held.delete(file)) rmSync(file, { force: true });
    },
  };
}

function readOwner(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    // Released meanwhile.
    return "";
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
    return `${pid}`;
  }
}

/** Whether the process that a lock names runs, and is not this one under an id that came again. */
function isAlive(owner: string): boolean {
  const pid = Number(owner.split(" ")[0]);
  if (!Number.isSafeInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it runs, as somebody else.
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const now = nameOf(pid);
  return now === owner || !now.includes(" ") || !owner.includes(" ");
}
