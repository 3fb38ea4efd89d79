/**
 * Keeps usage events on disk until the server has them. A folder holds segments, files that are only appended to; each
 * append is one group of events with its checksum, made durable before it counts. What a crash left of a group at the end
 * of a segment is passed over: it was never said to be durable. What was delivered and not yet removed is delivered again
 * after a crash, with the same ids, and so counts once.
 */
import { type FileHandle, mkdir, open, readdir, rm } from "node:fs/promises";
import path from "node:path";
import { crc32 } from "node:zlib";
import { type Batch, FULL_BATCH_BYTES, MAX_BATCH_EVENTS } from "./encode.ts";
import { type FolderLock, lockFolder } from "./folder-lock.ts";

/** Where events are kept, and how many. */
export interface SpoolOptions {
  /** A folder for this alone, on a disk of this machine; made where it is absent. One process at a time may have it. */
  readonly folder: string;
  /** The most bytes on disk; 64 MiB when absent. An event has 100 to 200. */
  readonly maxBytes?: number;
}

/** An open spool; its methods may be called at any time, and take their turn. */
export interface Spool {
  /** How many events wait. */
  readonly events: number;
  /**
   * Makes a batch durable.
   * @throws {SpoolFullError} when there is no room; {@link Error} of the file system. Nothing is kept then.
   */
  append(batch: Batch): Promise<void>;
  /** The oldest events, as many as a request takes; undefined: there are none. The same again until `drop`. */
  next(): Promise<Batch | undefined>;
  /** Removes what `next` returned last. */
  drop(): Promise<void>;
  /** Gives up the folder. */
  close(): Promise<void>;
}

/** What the owner of a spool is told. */
export interface SpoolListener {
  /** So many events that were durable can't be read any more: the disk has damaged them. */
  onDamaged(events: number, file: string): void;
}

/** No more fits into the spool until something has been delivered. */
class SpoolFullError extends Error {
  constructor(folder: string, maxBytes: number) {
    super(`the spool ${folder} is full: it has ${maxBytes} bytes of usage events that were not delivered yet`);
    this.name = "SpoolFullError";
  }
}

const DEFAULT_MAX_BYTES = 64 * 1024 * 1024;
/** A segment that has so much is not appended to; delivered ones are removed whole. */
const SEGMENT_BYTES = 1024 * 1024;
const MARK = Buffer.from("licet-usage-1\n");
/** Length, number of events, checksum; 32 bits each, big-endian. */
const GROUP_HEADER_BYTES = 12;
/** One read: the largest group, which is one event over a full batch, fits. */
const READ_BYTES = 1024 * 1024;

interface Segment {
  readonly file: string;
  /** Up to here it is durable and whole. */
  size: number;
  /** How many of its events were not delivered. */
  events: number;
}

interface State {
  readonly folder: string;
  readonly maxBytes: number;
  readonly lock: FolderLock;
  readonly listener: SpoolListener;
  /** The oldest first; the last one is appended to while `active` is open. */
  readonly segments: Segment[];
  /** The number of the next segment. */
  next: number;
  active: FileHandle | undefined;
  /** Up to where the first segment is delivered. */
  delivered: number;
  /** What `next` returned last: where it ends in the first segment, and how many events it has. */
  taken: { readonly end: number; readonly events: number } | undefined;
}

/**
 * Opens a spool and finds what earlier runs left in it.
 *
 * @throws {Error} naming the folder when another process has it, when it can't be written, or when a file in it is of a
 *   later version of this program.
 */
export async function openSpool(options: SpoolOptions, listener: SpoolListener): Promise<Spool> {
  const { folder, maxBytes = DEFAULT_MAX_BYTES } = options;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const lock = lockFolder(folder);
  try {
    const { segments, next } = await readFolder(folder);
    const own = { active: undefined, delivered: MARK.length, taken: undefined };
    return asSpool({ folder, maxBytes, lock, listener, segments, next, ...own });
  } catch (error) {
    lock.release();
    throw error;
  }
}

function asSpool(state: State): Spool {
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(run: () => Promise<T>): Promise<T> => {
    const turn = last.then(run);
    last = turn.catch(() => undefined);
    return turn;
  };
  return {
    get events() {
      return state.segments.reduce((sum, { events }) => sum + events, 0);
    },
    append: (batch) => inTurn(() => append(state, batch)),
    next: () => inTurn(() => next(state)),
    drop: () => inTurn(() => drop(state)),
    close: () =>
      inTurn(async () => {
        await state.active?.close();
        state.active = undefined;
        // A segment that was delivered as a whole is a few bytes of nothing.
        for (const { file, events } of state.segments) if (events === 0) await rm(file, { force: true });
        state.lock.release();
      }),
  };
}

/** What earlier runs left, and the number of the next segment. */
async function readFolder(folder: string): Promise<{ segments: Segment[]; next: number }> {
  const names = (await readdir(folder)).filter((name) => /^\d+\.usage$/.test(name)).sort();
  const segments: Segment[] = [];
  for (const name of names) {
    const segment = await readSegment(path.join(folder, name));
    if (segment.events > 0) segments.push(segment);
    else await rm(segment.file, { force: true });
  }
  return { segments, next: Number.parseInt(names.at(-1) ?? "0", 10) + 1 };
}

/** How far a segment of an earlier run is whole. */
async function readSegment(file: string): Promise<Segment> {
  const handle = await open(file, "r");
  try {
    const mark = await readAt(handle, 0, MARK.length);
    // Cut short: the run ended when it had just made the file.
    if (mark.length < MARK.length) return { file, size: 0, events: 0 };
    if (!mark.equals(MARK)) throw new Error(`${file} is not in this version's format (${MARK.toString().trim()})`);
    let size = MARK.length;
    let events = 0;
    for (;;) {
      const groups = readGroups(await readAt(handle, size, READ_BYTES), Number.POSITIVE_INFINITY);
      if (groups.bytes === 0) return { file, size, events };
      size += groups.bytes;
      events += groups.events;
    }
  } finally {
    await handle.close();
  }
}

async function append(state: State, { body, count }: Batch): Promise<void> {
  const used = state.segments.reduce((sum, { size }) => sum + size, 0);
  const group = Buffer.concat([Buffer.alloc(GROUP_HEADER_BYTES), body]);
  if (used + MARK.length + group.length > state.maxBytes) throw new SpoolFullError(state.folder, state.maxBytes);
  group.writeUInt32BE(body.length, 0);
  group.writeUInt32BE(count, 4);
  group.writeUInt32BE(checksum(group), 8);
  const { handle, segment } = await activeSegment(state);
  try {
    await handle.write(group, 0, group.length, segment.size);
    await handle.datasync();
  } catch (error) {
    // What lies behind `size` now is unknown: nothing is written behind it.
    state.active = undefined;
    await handle.close().catch(() => undefined);
    throw error;
  }
  segment.size += group.length;
  segment.events += count;
}

async function activeSegment(state: State): Promise<{ handle: FileHandle; segment: Segment }> {
  const current = state.segments.at(-1);
  if (state.active !== undefined && current !== undefined) {
    if (current.size < SEGMENT_BYTES) return { handle: state.active, segment: current };
    await state.active.close();
    state.active = undefined;
  }
  const segment = {
    file: path.join(state.folder, `${String(state.next).padStart(12, "0")}.usage`),
    size: 0,
    events: 0,
  };
  state.next += 1;
  const handle = await open(segment.file, "wx", 0o600);
  try {
    await handle.write(MARK, 0, MARK.length, 0);
    // Without this the file itself, with all that is made durable in it, may be gone after a loss of power.
    const folder = await open(state.folder, "r");
    await folder.sync().finally(() => folder.close());
  } catch (error) {
    await handle.close().catch(() => undefined);
    await rm(segment.file, { force: true }).catch(() => undefined);
    throw error;
  }
  segment.size = MARK.length;
  state.segments.push(segment);
  state.active = handle;
  return { handle, segment };
}

async function next(state: State): Promise<Batch | undefined> {
  for (;;) {
    const [first] = state.segments;
    if (first === undefined || first.events === 0) return undefined;
    const handle = await open(first.file, "r");
    const whole = Math.min(READ_BYTES, first.size - state.delivered);
    const bytes = await readAt(handle, state.delivered, whole).finally(() => handle.close());
    const groups = readGroups(bytes, MAX_BATCH_EVENTS);
    if (groups.bytes > 0) {
      state.taken = { end: state.delivered + groups.bytes, events: groups.events };
      return { body: Buffer.concat(groups.bodies), count: groups.events };
    }
    // It was whole when it was written or found.
    state.listener.onDamaged(first.events, first.file);
    state.taken = { end: first.size, events: first.events };
    await drop(state);
  }
}

async function drop(state: State): Promise<void> {
  const [first] = state.segments;
  const { taken } = state;
  if (first === undefined || taken === undefined) return;
  state.taken = undefined;
  state.delivered = taken.end;
  first.events -= taken.events;
  if (first.events > 0) return;
  if (state.active !== undefined && state.segments.length === 1) {
    // It is appended to: emptied, it stays. A crash before that is on disk delivers its events again.
    await state.active.truncate(MARK.length);
    first.size = MARK.length;
    state.delivered = MARK.length;
    return;
  }
  state.segments.shift();
  state.delivered = MARK.length;
  await rm(first.file, { force: true });
}

/** The whole groups at the beginning of some bytes, as many as have together no more events and bytes than a request. */
function readGroups(bytes: Buffer, maxEvents: number): { bodies: Buffer[]; bytes: number; events: number } {
  const bodies: Buffer[] = [];
  let [end, events, size] = [0, 0, 0];
  while (end + GROUP_HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt32BE(end);
    const count = bytes.readUInt32BE(end + 4);
    const group = bytes.subarray(end, end + GROUP_HEADER_BYTES + length);
    if (group.length < GROUP_HEADER_BYTES + length || checksum(group) !== bytes.readUInt32BE(end + 8)) break;
    const fits = events + count <= maxEvents && size + length <= FULL_BATCH_BYTES;
    if (bodies.length > 0 && !fits) break;
    bodies.push(group.subarray(GROUP_HEADER_BYTES));
    end += group.length;
    events += count;
    size += length;
  }
  return { bodies, bytes: end, events };
}

/** Of everything in a group but the checksum itself. */
function checksum(group: Buffer): number {
  return crc32(group.subarray(GROUP_HEADER_BYTES), crc32(group.subarray(0, 8)));
}

async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let end = 0;
  while (end < length) {
    const { bytesRead } = await handle.read(buffer, end, length - end, position + end);
    if (bytesRead === 0) break;
    end += bytesRead;
  }
  return buffer.subarray(0, end);
}
