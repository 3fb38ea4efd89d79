import { createHmac, hkdfSync, randomUUID, timingSafeEqual } from "node:crypto";
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import type { ClockMark } from "./clock.ts";
import { LicetError } from "./errors.ts";
import type { SavedFacts } from "./facts.ts";

/** The largest file that is written or read, in bytes: a million ordinary customers take 300 MB. */
const MAX_FILE_BYTES = 512 * 1024 * 1024;
/** After how many milliseconds a file that was never finished is nobody's any more: writing takes seconds. */
const ABANDONED_MS = 3_600_000;
/** How much is made before it is written, in bytes: a few milliseconds' work, then others have their turn. */
const CHUNK_BYTES = 64 * 1024;
const MAGIC = Buffer.from("LICETSDK");
/** The format that this SDK writes, and the only one it reads. */
const FORMAT = 2;
const HEAD_BYTES = MAGIC.length + 4;
const SEAL_BYTES = 32;
const TEMPORARY = ".tmp";

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
  readonly facts?: (Omit<SavedFacts, "messages"> & { readonly id: string }) | undefined;
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
  /** The largest file that is written or read, in bytes; 512 MiB when absent. */
  readonly maxFileBytes?: number;
}

/** Creates the cache; nothing is read or written yet. */
export function createDiskCache(options: DiskCacheOptions): DiskCache {
  const { directory, secret, scope, warn, maxFileBytes = MAX_FILE_BYTES } = options;
  const key = Buffer.from(hkdfSync("sha256", secret, "", "licet-sdk/cache/v1", 32));
  const factsFile = path.join(directory, "entitlements.licet");
  const clockFile = path.join(directory, "clock.licet");
  const attempt = <T>(file: string, kind: Kind, parse: (payload: Buffer) => T): T | undefined => {
    try {
      const bytes = readWhole(file, maxFileBytes);
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
    writeFacts: (facts) => replace(factsFile, seal(encodeFacts(facts, scope), "facts", key), maxFileBytes),
    writeClock: (clock) => replace(clockFile, seal([Buffer.from(JSON.stringify(clock))], "clock", key), maxFileBytes),
  };
}

/** What stands before the messages of facts. */
type FactsHead = Omit<StoredFacts, "messages"> & { readonly scope: string };

function* encodeFacts({ messages, ...head }: StoredFacts, scope: string): Generator<Uint8Array> {
  const text = Buffer.from(JSON.stringify({ ...head, scope } satisfies FactsHead));
  yield uint32(text.length);
  yield text;
  for (const message of messages) {
    yield uint32(message.length);
    yield message;
  }
}

function decodeFacts(payload: Buffer, scope: string): StoredFacts {
  const headEnd = 4 + payload.readUInt32BE(0);
  const { scope: found, ...head } = JSON.parse(payload.subarray(4, headEnd).toString()) as FactsHead;
  if (found !== scope) throw new Error("was written for other customers");
  return { ...head, messages: partsOf(payload.subarray(headEnd)) };
}

/** The parts, each behind its length. */
function* partsOf(payload: Buffer): Generator<Uint8Array> {
  for (let at = 0; at < payload.length; ) {
    const end = at + 4 + payload.readUInt32BE(at);
    yield payload.subarray(at + 4, end);
    at = end;
  }
}

function* seal(payload: Iterable<Uint8Array>, kind: Kind, key: Buffer): Generator<Uint8Array> {
  const hmac = createHmac("sha256", key);
  const head = Buffer.concat([MAGIC, Buffer.from([0, FORMAT, 0, kindNumber[kind]])]);
  hmac.update(head);
  yield head;
  for (const part of payload) {
    hmac.update(part);
    yield part;
  }
  yield hmac.digest();
}

/** The same bytes in larger pieces. */
function* chunksOf(parts: Iterable<Uint8Array>): Generator<Buffer> {
  let chunk: Uint8Array[] = [];
  let length = 0;
  for (const part of parts) {
    chunk.push(part);
    length += part.length;
    if (length < CHUNK_BYTES) continue;
    yield Buffer.concat(chunk);
    chunk = [];
    length = 0;
  }
  yield Buffer.concat(chunk);
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

function readWhole(file: string, maxBytes: number): Buffer | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(file, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const { size } = fstatSync(descriptor);
    if (size > maxBytes) throw new Error(`has ${size} bytes, more than ${maxBytes}`);
    return readFileSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Whoever opens the file sees the old content or the new one, also after the machine lost power. */
async function replace(file: string, content: Iterable<Uint8Array>, maxBytes: number): Promise<void> {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  await removeAbandoned(file);
  const temporary = `${file}.${randomUUID()}${TEMPORARY}`;
  try {
    await withFile(temporary, "wx", async (handle) => {
      let written = 0;
      for (const chunk of chunksOf(content)) {
        written += chunk.length;
        if (written > maxBytes) throw new Error(`${file} would have more than ${maxBytes} bytes`);
        // It goes on behind what was written before.
        await handle.writeFile(chunk);
      }
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

/** Removes what processes left that ended while they wrote: each may be as large as the file. */
async function removeAbandoned(file: string): Promise<void> {
  const directory = path.dirname(file);
  const begin = `${path.basename(file)}.`;
  for (const name of await readdir(directory)) {
    if (!name.startsWith(begin) || !name.endsWith(TEMPORARY)) continue;
    const temporary = path.join(directory, name);
    // Another process may have finished it, or removed it, meanwhile.
    const { mtimeMs } = await stat(temporary).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }));
    if (Date.now() - mtimeMs > ABANDONED_MS) await rm(temporary, { force: true });
  }
}

async function withFile(file: string, flags: string, use: (handle: FileHandle) => Promise<void>): Promise<void> {
  const handle = await open(file, flags, 0o600);
  try {
    await use(handle);
  } finally {
    await handle.close();
  }
}
