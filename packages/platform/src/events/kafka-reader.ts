import { setTimeout as delay } from "node:timers/promises";
import type { Batch as KafkaBatch, KafkaMessage } from "kafkajs";
import type { Logger } from "../logging.ts";
import { type BusRecord, defaultBatchRecords, redeliveryDelayMs, type SubscribeOptions } from "./bus.ts";
import { createCondition } from "./condition.ts";
import type { PartitionBounds } from "./kafka-client.ts";
import { heartbeatTime } from "./kafka-heartbeat.ts";

/** How long a fetch waits for a busy partition before the others go on without it. */
const busyMs = 100;

/** What a reader can do with its partition, as long as it holds it. */
export interface HeldPartition {
  readonly topic: string;
  readonly partition: number;
  /** Aborts when the partition is lost or reading ends. */
  readonly signal: AbortSignal;
  /** Where reading begins, and where it goes on after a failure of a handler that keeps its own offset. */
  load(): Promise<bigint>;
  bounds(): Promise<PartitionBounds>;
  /** Fetches from `offset` on. */
  seek(offset: bigint): void;
  pause(): void;
  resume(): void;
  /** Keeps that everything before `offset` is handled. */
  commit(offset: bigint): Promise<void>;
  /** Gives everything up that was fetched and assigned, and begins anew. */
  restart(reason: Error): void;
}

/** What a {@link KafkaPartitionReader} needs: the partition that it holds, and the subscription that it belongs to. */
export interface KafkaReaderOptions {
  readonly held: HeldPartition;
  readonly subscription: SubscribeOptions;
  readonly logger: Logger;
  /** Resolves when the partition's former reader has ended. */
  readonly after: Promise<void>;
  /** Called whenever the reader knows or has moved its {@link KafkaPartitionReader.cursor}. */
  readonly onProgress: () => void;
}

/**
 * Reads one assigned partition: keeps what was fetched until it is handled, in order and independently of the other
 * partitions. It holds back fetching when handling is slower, so it never keeps more than one fetch and one batch.
 */
export class KafkaPartitionReader {
  readonly ended: Promise<void>;
  readonly #options: KafkaReaderOptions;
  readonly #logger: Logger;
  readonly #changed = createCondition();
  readonly #batchRecords: number;
  /** Fetched and not handled yet, heartbeats among them. */
  readonly #buffer: BusRecord[] = [];
  /** The offset behind what was fetched; undefined until it is known where to begin. */
  #fetched: bigint | undefined;
  /** Where handling stands. */
  #position = 0n;
  #committed: bigint | undefined;
  #reload = false;
  #paused = false;

  constructor(options: KafkaReaderOptions) {
    const { held, logger, subscription } = options;
    this.#options = options;
    this.#logger = logger.child({ topic: held.topic, partition: held.partition });
    this.#batchRecords = subscription.maxBatchRecords ?? defaultBatchRecords;
    this.ended = this.#run();
  }

  /** The offset behind what was handled and looked at; undefined until it is known where to begin. */
  get cursor(): bigint | undefined {
    if (this.#fetched === undefined) return undefined;
    const next = this.#buffer[0]?.offset ?? this.#fetched;
    return later(next, this.#position);
  }

  /** Takes what was fetched; false when it can't be used. */
  offer(batch: KafkaBatch): boolean {
    const { held } = this.#options;
    if (held.signal.aborted || this.#fetched === undefined) {
      // Not now: else the same records would be fetched again and again.
      held.pause();
      return false;
    }
    const from = fetchedOffset(batch);
    if (from !== this.#fetched) {
      // Retention has removed what was to be fetched, or the answer to an older question came late.
      held.restart(new Error(`fetched from ${from} instead of ${this.#fetched}`));
      return false;
    }
    for (const message of batch.messages) this.#buffer.push(toRecord(batch, message));
    this.#fetched = BigInt(batch.lastOffset()) + 1n;
    this.#changed.notify();
    return true;
  }

  /** Compaction left nothing up to `lastOffset` of what was fetched. */
  skip(lastOffset: bigint): void {
    if (this.#fetched === undefined || lastOffset < this.#fetched) return;
    this.#fetched = lastOffset + 1n;
    this.#changed.notify();
  }

  /** Waits a moment for room for the next fetch, or takes the partition out of it until there is room. */
  async makeRoom(): Promise<void> {
    if (this.#hasRoom()) return;
    const { held } = this.#options;
    const busy = AbortSignal.any([held.signal, AbortSignal.timeout(busyMs)]);
    while (!busy.aborted && !this.#hasRoom()) await this.#changed.wait(busy);
    if (held.signal.aborted || this.#hasRoom()) return;
    this.#paused = true;
    held.pause();
  }

  #hasRoom(): boolean {
    return this.#buffer.length <= this.#batchRecords;
  }

  async #run(): Promise<void> {
    const { held, subscription } = this.#options;
    const { reader } = subscription;
    const keepsOffset = reader.kind === "group" && reader.loadOffset !== undefined;
    let failures = 0;
    await this.#options.after;
    while (!held.signal.aborted) {
      try {
        await this.#step();
        failures = 0;
      } catch (error) {
        if (held.signal.aborted) break;
        this.#reload = keepsOffset;
        const retryMs = redeliveryDelayMs(failures);
        failures++;
        const stale = error instanceof Error && error.name === "StalePositionError";
        this.#logger[stale ? "debug" : "warn"](
          { err: error, failures, retryMs },
          "reading is held up; it will be tried again",
        );
        await delay(retryMs, undefined, { signal: held.signal }).catch(() => undefined);
      }
    }
    // What was handled last. When the partition is lost already, its next reader handles it again.
    await this.#commit().catch((error: unknown) =>
      this.#logger.debug({ err: error }, "the last position was not stored"),
    );
  }

  /** One step: find the place, or store it, or handle what comes next, or wait for more. */
  async #step(): Promise<void> {
    if (this.#fetched === undefined) await this.#begin();
    if (this.#reload) await this.#reposition();
    await this.#commit();
    const { held } = this.#options;
    const next = this.#buffer[0];
    if (next === undefined) return held.signal.aborted ? undefined : this.#changed.wait(held.signal);
    const beat = heartbeatTime(next);
    if (beat === undefined) await this.#handle();
    else {
      this.#options.subscription.onHeartbeat?.({ topic: held.topic, partition: held.partition, issuedAt: beat });
      this.#buffer.shift();
    }
    if (this.#paused && this.#hasRoom()) {
      this.#paused = false;
      held.resume();
    }
    this.#changed.notify();
  }

  /** Handles the records up to the next heartbeat, at most a batch of them. */
  async #handle(): Promise<void> {
    const { held, subscription } = this.#options;
    const limit = Math.min(this.#batchRecords, this.#buffer.length);
    let count = 1;
    while (count < limit && heartbeatTime(this.#buffer[count] as BusRecord) === undefined) count++;
    const records = this.#buffer.slice(0, count);
    const nextOffset = (records[count - 1] as BusRecord).offset + 1n;
    const { topic, partition, signal } = held;
    await subscription.handle({ topic, partition, records, firstOffset: this.#position, nextOffset, signal });
    this.#position = nextOffset;
    this.#buffer.splice(0, count);
  }

  async #begin(): Promise<void> {
    const { held, subscription, onProgress } = this.#options;
    const [start, bounds] = [await held.load(), await held.bounds()];
    if (start > bounds.offset) {
      throw new Error(
        `the position ${start} lies behind the partition's end ${bounds.offset}: was the topic made anew?`,
      );
    }
    if (held.signal.aborted) return;
    this.#position = start;
    // A group whose handler keeps the offset may have told Kafka less than it has handled.
    const { reader } = subscription;
    this.#committed = reader.kind === "group" && reader.loadOffset === undefined ? start : undefined;
    this.#fetched = later(start, bounds.low);
    held.seek(this.#fetched);
    held.resume();
    onProgress();
  }

  /** Goes to where the handler's own offset is, after a failure. */
  async #reposition(): Promise<void> {
    const { held } = this.#options;
    const stored = await held.load();
    if (stored < this.#position) {
      held.restart(new Error(`the stored offset went back from ${this.#position} to ${stored}`));
      return;
    }
    this.#position = stored;
    const rest = this.#buffer.findIndex(({ offset }) => offset >= stored);
    this.#buffer.splice(0, rest < 0 ? this.#buffer.length : rest);
    this.#reload = false;
  }

  async #commit(): Promise<void> {
    const { cursor } = this;
    if (cursor === undefined || cursor === this.#committed) return;
    await this.#options.held.commit(cursor);
    this.#committed = cursor;
    this.#options.onProgress();
  }
}

function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/** The offset a batch was asked for: there, but missing in kafkajs's types. */
function fetchedOffset(batch: KafkaBatch): bigint {
  const { fetchedOffset: offset } = batch as KafkaBatch & { fetchedOffset: string };
  return BigInt(offset);
}

function toRecord({ topic, partition }: KafkaBatch, message: KafkaMessage): BusRecord {
  const headers = Object.entries(message.headers ?? {}).map(([name, value]) => {
    const last = Array.isArray(value) ? value.at(-1) : value;
    return [name, last?.toString() ?? ""];
  });
  return {
    topic,
    partition,
    offset: BigInt(message.offset),
    key: message.key?.toString() ?? "",
    headers: Object.fromEntries(headers),
    value: message.value ?? new Uint8Array(),
  };
}
