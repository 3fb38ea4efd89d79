import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../logging.ts";
import {
  defaultBatchRecords,
  type Position,
  redeliveryDelayMs,
  StalePositionError,
  type SubscribeOptions,
} from "./bus.ts";
import { createCondition } from "./condition.ts";
import {
  type LogDatabase,
  loadGroupOffset,
  noteGroupOffset,
  type Place,
  readPage,
  saveGroupOffset,
  type Tail,
} from "./postgres-log.ts";
import type { TailObserver } from "./postgres-tails.ts";
import type { SessionLocks } from "./session-locks.ts";

/** Most heartbeats that wait for the records before them; further ones are left out. */
const waitingBeats = 64;

/** Reads one partition for one subscription. */
export interface PartitionReader extends TailObserver {
  /** Resolves when everything before the position of this partition is handled, by this reader or another one of its group. */
  caughtUp(positions: readonly Position[]): Promise<void>;
  /** Resolves once reading has ended after the signal aborted. */
  readonly ended: Promise<void>;
}

/** What {@link startPartitionReader} needs: the partition, and the subscription that it belongs to. */
export interface PartitionReaderOptions {
  readonly db: LogDatabase;
  readonly locks: SessionLocks;
  readonly logger: Logger;
  readonly place: Place;
  readonly subscription: SubscribeOptions;
  readonly signal: AbortSignal;
  /** How often a reader without the partition looks where its group is, in milliseconds. */
  readonly pollMs: number;
}

/** Starts to read a partition until `signal` aborts; see {@link SubscribeOptions} for what is delivered. */
export function startPartitionReader(options: PartitionReaderOptions): PartitionReader {
  return new PostgresPartitionReader(options);
}

class PostgresPartitionReader implements PartitionReader {
  readonly place: Place;
  readonly ended: Promise<void>;
  readonly #options: PartitionReaderOptions;
  readonly #logger: Logger;
  readonly #changed = createCondition();
  #end = 0n;
  #beats: { issuedAt: Date; offset: bigint }[] = [];
  #newestBeat: Date | undefined;
  /** Where handling stands; undefined while it must be loaded or belongs to another reader. */
  #position: bigint | undefined;
  /** What the log knows of the position of a group that stores it itself. */
  #noted: bigint | undefined;
  /** The offset behind what was looked at: above the position where records are gone. */
  #cursor = 0n;

  constructor(options: PartitionReaderOptions) {
    this.#options = options;
    this.place = options.place;
    this.#logger = options.logger.child(options.place);
    this.ended = this.#run();
  }

  observe(tail: Tail): void {
    this.#end = tail.offset;
    const beat = tail.heartbeat;
    const newBeat = beat !== undefined && beat.issuedAt.getTime() !== this.#newestBeat?.getTime();
    if (newBeat && this.#beats.length < waitingBeats) {
      this.#newestBeat = beat.issuedAt;
      this.#beats.push(beat);
    }
    if (newBeat || this.#cursor < this.#end) this.#changed.notify();
  }

  async caughtUp(positions: readonly Position[]): Promise<void> {
    const { signal, pollMs } = this.#options;
    const target = positions.find(isAt(this.place))?.offset ?? 0n;
    while (!(this.#position === undefined ? await this.#groupReached(target) : this.#cursor >= target)) {
      await this.#changed.wait(AbortSignal.any([signal, AbortSignal.timeout(pollMs)]));
      if (signal.aborted) throw new Error("the subscription was stopped before it caught up", { cause: signal.reason });
    }
  }

  /** Whether the group of a reader that doesn't hold the partition has handled everything before `target`. */
  async #groupReached(target: bigint): Promise<boolean> {
    const { records } = await readPage(this.#options.db, this.place, await this.#load(), 1);
    return records[0] === undefined || records[0].offset >= target;
  }

  async #run(): Promise<void> {
    const { locks, signal, subscription } = this.#options;
    if (subscription.reader.kind === "all") return this.#read(signal);
    const name = `licet-bus/${JSON.stringify([subscription.reader.group, this.place.topic, this.place.partition])}`;
    while (!signal.aborted) {
      const lock = await locks.acquire(name, signal);
      if (lock === undefined) return;
      await this.#read(AbortSignal.any([signal, lock.signal]));
      this.#position = undefined;
      await lock.release();
    }
  }

  /** Reads until `held` aborts. */
  async #read(held: AbortSignal): Promise<void> {
    let failures = 0;
    while (!held.aborted) {
      try {
        await this.#readOn(held);
        failures = 0;
      } catch (error) {
        if (held.aborted) return;
        if (this.#options.subscription.reader.kind === "group") this.#position = undefined;
        else this.#cursor = this.#position ?? 0n;
        const retryMs = redeliveryDelayMs(failures);
        failures++;
        const level = error instanceof StalePositionError ? "debug" : "warn";
        this.#logger[level]({ err: error, failures, retryMs }, "a batch was not handled; it will be delivered again");
        await delay(retryMs, undefined, { signal: held }).catch(() => undefined);
      }
    }
  }

  /** One step: heartbeats that are due, then a page or a wait for news. */
  async #readOn(held: AbortSignal): Promise<void> {
    if (this.#position === undefined) {
      this.#cursor = await this.#load();
      this.#position = this.#cursor;
      // Another reader may have noted its own meanwhile.
      this.#noted = undefined;
    }
    await this.#note(this.#position);
    this.#deliverBeats();
    if (this.#cursor >= this.#end) return this.#changed.wait(held);
    const { db, subscription } = this.#options;
    const limit = subscription.maxBatchRecords ?? defaultBatchRecords;
    const { records, nextOffset } = await readPage(db, this.place, this.#cursor, limit);
    if (held.aborted) return;
    if (records.length > 0) {
      const firstOffset = this.#position;
      await subscription.handle({ ...this.place, records, firstOffset, nextOffset, signal: held });
      await this.#save(firstOffset, nextOffset);
      this.#position = nextOffset;
    }
    this.#cursor = nextOffset;
    this.#changed.notify();
  }

  async #load(): Promise<bigint> {
    const { db, subscription } = this.#options;
    const { reader } = subscription;
    if (reader.kind === "all") {
      return (reader.from === "beginning" ? undefined : reader.from.find(isAt(this.place))?.offset) ?? 0n;
    }
    if (reader.loadOffset === undefined) return loadGroupOffset(db, reader.group, this.place);
    return reader.loadOffset(this.place.topic, this.place.partition);
  }

  async #save(from: bigint, to: bigint): Promise<void> {
    const { db, subscription } = this.#options;
    const { reader } = subscription;
    if (reader.kind === "all" || reader.loadOffset !== undefined) return;
    const moved = await saveGroupOffset(db, reader.group, this.place, from, to);
    if (!moved) throw new StalePositionError({ ...this.place, firstOffset: from });
  }

  /** Tells the log where a group stands that stores its position itself, so that retention waits for it. */
  async #note(position: bigint): Promise<void> {
    const { db, subscription } = this.#options;
    const { reader } = subscription;
    if (reader.kind === "all" || reader.loadOffset === undefined || position === this.#noted) return;
    await noteGroupOffset(db, reader.group, this.place, position);
    this.#noted = position;
  }

  #deliverBeats(): void {
    for (let beat = this.#beats[0]; beat !== undefined && beat.offset <= this.#cursor; beat = this.#beats[0]) {
      this.#beats.shift();
      this.#options.subscription.onHeartbeat?.({ ...this.place, issuedAt: beat.issuedAt });
    }
  }
}

function isAt(place: { topic: string; partition: number }): (position: Position) => boolean {
  return ({ topic, partition }) => topic === place.topic && partition === place.partition;
}
