import { createHmac, hkdfSync, randomUUID, timingSafeEqual } from "node:crypto";
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import path from "node:path";
import type { ClockMark } from "./clock.ts";
import { LicetError } from "./errors.ts";
import type { SavedFacts } from "./facts.ts";

/** The largest file that is written or read, in bytes. */
const MAX_FILE_BYTES = 256 * 1024 * 1024;
const MAGIC = Buffer.from("LICETSDK");
/** The format that this SDK writes, and the only one it reads. */
const FORMAT = 1;
const HEAD_BYTES = MAGIC.length + 4;
const SEAL_BYTES = 32;

/** What a file holds: the two can't be taken for each other. */
type Kind = "facts" | "clock";
const kindNumber: Readonly<Record<Kind, number>> = { facts: 1, clock: 2 };

/** Facts as they lie on disk. */
export interface StoredFacts extends SavedFacts {
  /** Names what was written: the clock's file vouches for it by that. */
  readonly id: string;
  /** What the trusted clock showed when it was written: a restart can't be earlier. */
  readonly writtenAtMs: number;
}

/** The clock as it lies on disk. */
export interface StoredClock {
  readonly mark: ClockMark;
  /** The facts of this id have held until then, and the watch goes on from there. */
  readonly facts?: { readonly id: string; readonly factsAsOfMs: number; readonly resumeToken: string } | undefined;
}

/** Two files in a directory, in which facts and the clock's mark outlive restarts. */
export interface DiskCache {
  /**
   * What was written last. Files that are cut off, were changed, belong to another key or other customers, or have another
   * format are told to `warn` and are as if they were not there.
   */
  read(): { readonly facts: StoredFacts | undefined; readonly clock: StoredClock | undefined };
  /** Replaces the file as a whole, or leaves it. @throws Error of the file system, or when it would be too large. */
  writeFacts(facts: StoredFacts): Promise<void>;
  writeClock(clock: StoredClock): Promise<void>;
}

/** What {@link createDiskCache} needs. */
export interface DiskCacheOptions {
  /** It is made where it is not there. */
  readonly directory: string;
  /** What the files' seals are derived from: whoever does not have it can't change them unnoticed. */
  readonly secret: string;
  /** What the facts are about, such as the customers watched: those about something else are not taken. */
  readonly scope: string;
  readonly warn: (error: LicetError) => void;
}

/** Creates the cache; nothing is read or written yet. */
export function createDiskCache({ directory, secret, scope, warn }: DiskCacheOptions): DiskCache {
  const key = Buffer.from(hkdfSync("sha256", secret, "", "licet-sdk/cache/v1", 32));
  const factsFile = path.join(directory, "entitlements.licet");
  const clockFile = path.join(directory, "clock.licet");
  const attempt = <T>(file: string, kind: Kind, parse: (payload: Buffer) => T): T | undefined => {
    try {
      const bytes = readWhole(file);
      return bytes && parse(unseal(bytes, kind, key));
    } catch (cause) {
      const message = `${file}: ${(cause as Error).message}; begun anew`;
      warn(new LicetError({ code: "DATA_LOSS", reason: "CACHE_REFUSED", message, cause }));
      return undefined;
    }
  };

  return {
    read: () => ({
      facts: attempt(factsFile, "facts", (payload) => decodeFacts(payload, scope)),
      clock: attempt(clockFile, "clock", (payload) => JSON.parse(payload.toString()) as StoredClock),
    }),
    writeFacts: (facts) => replace(factsFile, seal(encodeFacts(facts, scope), "facts", key)),
    writeClock: (clock) => replace(clockFile, seal([Buffer.from(JSON.stringify(clock))], "clock", key)),
  };
}

/** What stands before the messages of facts. */
type FactsHead = Omit<StoredFacts, "messages"> & { readonly scope: string; readonly count: number };

function encodeFacts({ messages, ...head }: StoredFacts, scope: string): Buffer[] {
  const text = Buffer.from(JSON.stringify({ ...head, scope, count: messages.length } satisfies FactsHead));
  return [text, ...messages].flatMap((part) => [
    uint32(part.byteLength),
    Buffer.from(part.buffer, part.byteOffset, part.byteLength),
  ]);
}

function decodeFacts(payload: Buffer, scope: string): StoredFacts {
  let at = 0;
  const next = (): Buffer => {
    const end = at + 4 + payload.readUInt32BE(at);
    const part = payload.subarray(at + 4, end);
    at = end;
    return part;
  };
  const { scope: found, count, ...head } = JSON.parse(next().toString()) as FactsHead;
  if (found !== scope) throw new Error("was written for other customers");
  return { ...head, messages: Array.from({ length: count }, next) };
}

function seal(payload: readonly Buffer[], kind: Kind, key: Buffer): Buffer {
  const head = Buffer.concat([MAGIC, Buffer.from([0, FORMAT, 0, kindNumber[kind]])]);
  const body = Buffer.concat([head, ...payload]);
  return Buffer.concat([body, createHmac("sha256", key).update(body).digest()]);
}

/** The payload. @throws Error with what is wrong, verified before anything of it is read. */
function unseal(bytes: Buffer, kind: Kind, key: Buffer): Buffer {
  if (bytes.length < HEAD_BYTES + SEAL_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new Error("is no file of the Licet SDK, or is cut off");
  }
  const format = bytes.readUInt16BE(MAGIC.length);
  if (format !== FORMAT) throw new Error(`has format ${format}, this SDK reads ${FORMAT}`);
  if (bytes.readUInt16BE(MAGIC.length + 2) !== kindNumber[kind]) throw new Error(`does not hold ${kind}`);
  const body = bytes.subarray(0, -SEAL_BYTES);
  if (!timingSafeEqual(createHmac("sha256", key).update(body).digest(), bytes.subarray(-SEAL_BYTES))) {
    throw new Error("was written under another API key, was changed, or is cut off");
  }
  return body.subarray(HEAD_BYTES);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function readWhole(file: string): Buffer | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(file, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const { size } = fstatSync(descriptor);
    if (size > MAX_FILE_BYTES) throw new Error(`has ${size} bytes, more than ${MAX_FILE_BYTES}`);
    return readFileSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Whoever opens the file sees the old content or the new one, also after the machine lost power. */
async function replace(file: string, content: Buffer): Promise<void> {
  if (content.length > MAX_FILE_BYTES)
    throw new Error(`${file} would have ${content.length} bytes, more than ${MAX_FILE_BYTES}`);
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.${randomUUID()}.tmp`;
  try {
    await withFile(temporary, "wx", async (handle) => {
      await handle.writeFile(content);
      await handle.sync();
    });
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  // Windows can't open a directory, and keeps renames in order by itself.
  if (process.platform !== "win32") await withFile(path.dirname(file), "r", (handle) => handle.sync());
}

async function withFile(file: string, flags: string, use: (handle: FileHandle) => Promise<void>): Promise<void> {
  const handle = await open(file, flags, 0o600);
  try {
    await use(handle);
  } finally {
    await handle.close();
  }
}
