/**
 * Keeps usage events on disk until the server has them. A folder holds segments, files that are only appended to; each
 * append is one group of events with its checksum, made durable before it counts. What a crash left of a group at the end
 * of a segment is passed over: it was never said to be durable. Of a segment that the disk has damaged the whole groups
 * stay, and the file as it was is put aside. What was delivered and not yet removed is delivered again after a crash, with
 * the same ids, and so counts once.
 */
import { type FileHandle, link, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { type Batch, MAX_BATCH_EVENTS } from "./encode.ts";
import { type FolderLock, lockFolder } from "./folder-lock.ts";
import { type Found, findGroups, MAX_GROUP_BYTES, readGroups, toGroup } from "./groups.ts";

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
  /** It is open, and earlier runs left so many, with those that `onDamaged` is told next. */
  onInherited(events: number): void;
  /**
   * So many events that were durable can't be read any more: the disk has damaged them; 0 where how many can't be told. The
   * file as it was is beside this one, as `.damaged`, unless it is gone.
   */
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
/** A file that begins like this is of this or of another version. */
const ANY_MARK = /^licet-usage-\d+\n/;
/** One read: the largest group fits. */
const READ_BYTES = 1024 * 1024;
/** What a segment can have at most. */
const MAX_SEGMENT_BYTES = SEGMENT_BYTES + MAX_GROUP_BYTES;
/** So many damaged files are kept, the newest, for whoever wants to look into them; beside `maxBytes`. */
const MAX_DAMAGED_FILES = 4;

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
    const { segments, damaged, next } = await readFolder(folder);
    const own = { active: undefined, delivered: MARK.length, taken: undefined };
    listener.onInherited([...segments, ...damaged].reduce((sum, { events }) => sum + events, 0));
    for (const { events, file } of damaged) listener.onDamaged(events, file);
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

/** A file with so many events that can't be read; 0: that can't be told. */
type Damage = Pick<Segment, "file" | "events">;

/** What earlier runs left, and the number of the next segment. */
async function readFolder(folder: string): Promise<{ segments: Segment[]; damaged: Damage[]; next: number }> {
  const names = (await readdir(folder)).filter((name) => /^\d+\.usage$/.test(name)).sort();
  const read: Awaited<ReturnType<typeof readSegment>>[] = [];
  for (const name of names) read.push(await readSegment(path.join(folder, name)));
  // Not before all could be read: who tries again would not find the damage any more.
  const segments: Segment[] = [];
  const damaged: Damage[] = [];
  for (const { segment, isWhole, lost } of read) {
    const { file } = segment;
    const kept = isWhole ? segment : await salvage(file, findGroups(await readFrom(file, MARK.length)));
    if (kept.events > 0) segments.push(kept);
    else await rm(file, { force: true });
    if (lost !== undefined) damaged.push({ file, events: lost });
  }
  return { segments, damaged, next: Number.parseInt(names.at(-1) ?? "0", 10) + 1 };
}

/** How far a segment of an earlier run is whole, whether it is to its end, and what the disk has damaged. */
async function readSegment(file: string): Promise<{ segment: Segment; isWhole: boolean; lost: number | undefined }> {
  const bytes = await readFrom(file, 0);
  const mark = bytes.subarray(0, MARK.length);
  const isMarked = mark.equals(MARK);
  if (!isMarked && ANY_MARK.test(mark.toString("latin1"))) {
    throw new Error(`${file} is not in this version's format (${MARK.toString().trim()})`);
  }
  const { groups, events, lost } = findGroups(bytes.subarray(MARK.length));
  const size = MARK.length + groups.reduce((sum, { length }) => sum + length, 0);
  const segment = { file, size, events };
  if (isMarked || events > 0) return { segment, isWhole: isMarked && lost === undefined, lost };
  // Cut short or never written, the mark is what a crash left of a file that was just made.
  const isTorn = lost === undefined && (mark.length < MARK.length || mark.every((byte) => byte === 0));
  return { segment, isWhole: isTorn, lost: isTorn ? undefined : (lost ?? 0) };
}

/** Puts what was found whole in the place of a damaged file, which is put aside. */
async function salvage(file: string, { groups, events }: Pick<Found, "groups" | "events">): Promise<Segment> {
  const content = Buffer.concat([MARK, ...groups]);
  if (events > 0) {
    // After a crash in between, the file is still there and is salvaged again.
    const handle = await open(`${file}.new`, "w", 0o600);
    await handle
      .writeFile(content)
      .then(() => handle.datasync())
      .finally(() => handle.close());
  }
  await putAside(file).catch(unlessGone);
  if (events > 0) await rename(`${file}.new`, file);
  return { file, size: content.length, events };
}

/** Keeps a damaged file under a second name, and the newest of such files only. */
async function putAside(file: string): Promise<void> {
  const aside = `${file}.damaged`;
  await rm(aside, { force: true });
  await link(file, aside);
  const folder = path.dirname(file);
  const kept = (await readdir(folder)).filter((name) => /^\d+\.usage\.damaged$/.test(name)).sort();
  for (const name of kept.slice(0, -MAX_DAMAGED_FILES)) await rm(path.join(folder, name), { force: true });
}

/** For a file that somebody has removed. */
function unlessGone(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}

async function append(state: State, batch: Batch): Promise<void> {
  const used = state.segments.reduce((sum, { size }) => sum + size, 0);
  const group = toGroup(batch);
  if (used + MARK.length + group.length > state.maxBytes) throw new SpoolFullError(state.folder, state.maxBytes);
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
  segment.events += batch.count;
}

async function activeSegment(state: State): Promise<{ handle: FileHandle; segment: Segment }> {
  const current = state.segments.at(-1);
  if (state.active !== undefined && current !== undefined) {
    if (current.size < SEGMENT_BYTES) return { handle: state.active, segment: current };
    await state.active.close();
    state.active = undefined;
  }
  // After a write that failed: only the last one may have nothing, or what is behind it would not be found.
  if (current?.events === 0) await removeEmpty(state, current);
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

/** Removes the last segment, of which nothing waits. */
async function removeEmpty(state: State, { file }: Segment): Promise<void> {
  await rm(file, { force: true });
  state.segments.pop();
  if (state.segments.length === 0) state.delivered = MARK.length;
}

async function next(state: State): Promise<Batch | undefined> {
  for (;;) {
    const [first] = state.segments;
    if (first === undefined || first.events === 0) return undefined;
    const groups = readGroups(await readWaiting(state, first), MAX_BATCH_EVENTS);
    if (groups.bytes > 0) {
      state.taken = { end: state.delivered + groups.bytes, events: groups.events };
      return { body: Buffer.concat(groups.bodies), count: groups.events };
    }
    // It was whole when it was written or found.
    await salvageFirst(state, first);
  }
}

/** Goes on with what is whole of the first segment, behind what is delivered of it, and tells what is not. */
async function salvageFirst(state: State, first: Segment): Promise<void> {
  if (state.segments.length === 1) {
    // Nothing is appended to a file that is damaged, or gone.
    await state.active?.close();
    state.active = undefined;
  }
  // What is behind `size` was never said to be durable, and was written again elsewhere.
  const found = findGroups(await readFrom(first.file, state.delivered, first.size - state.delivered));
  const whole = await salvage(first.file, found);
  state.listener.onDamaged(first.events - whole.events, first.file);
  state.delivered = MARK.length;
  state.segments[0] = whole;
  if (whole.events > 0) return;
  state.segments.shift();
  await rm(first.file, { force: true });
}

/** The bytes of the first segment that wait, as many as one read takes. */
function readWaiting(state: State, { file, size }: Segment): Promise<Buffer> {
  return readFrom(file, state.delivered, Math.min(READ_BYTES, size - state.delivered));
}

/** At most so many bytes from a place of a segment on; none of a file that somebody has removed. */
async function readFrom(file: string, position: number, length: number = MAX_SEGMENT_BYTES): Promise<Buffer> {
  const handle = await open(file, "r").catch(unlessGone);
  if (handle === undefined) return Buffer.alloc(0);
  return readAt(handle, position, length).finally(() => handle.close());
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
