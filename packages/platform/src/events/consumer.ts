import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { context, type Link, metrics, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { isPassingError } from "../database/connection.ts";
import { type Code, ServiceError } from "../errors.ts";
import type { Logger } from "../logging.ts";
import {
  type Batch,
  type BusRecord,
  deadLetterTopic,
  type EventBus,
  type Heartbeat,
  type Reader,
  StalePositionError,
  type SubscribeOptions,
  type Subscription,
} from "./bus.ts";
import { topicOf } from "./cloudevent.ts";

/** An event with the record that carried it. */
export interface Consumed<Desc extends DescMessage> {
  readonly record: BusRecord;
  readonly message: MessageShape<Desc>;
}

/** What {@link createConsumer} needs: the events of one type, who reads them and what to do with them. */
export interface ConsumerOptions<Desc extends DescMessage> {
  readonly bus: Pick<EventBus, "publish" | "subscribe">;
  /** The events' type; its option `licet.options.v1.topic` names the topic. */
  readonly desc: Desc;
  readonly reader: Reader;
  /**
   * Applies the events of a batch. `messages` can be empty (nothing in the batch could be processed) and the batch a
   * single record of a larger one; a handler that keeps its own offset moves it from `batch.firstOffset` to
   * `batch.nextOffset` in any case, and throws {@link StalePositionError} when it isn't at `firstOffset`.
   */
  readonly apply: (messages: readonly Consumed<Desc>[], batch: Batch) => Promise<void>;
  /** See {@link SubscribeOptions.onHeartbeat}. */
  readonly onHeartbeat?: (beat: Heartbeat) => void;
  /** See {@link SubscribeOptions.maxBatchRecords}. */
  readonly maxBatchRecords?: number;
  readonly logger: Logger;
}

/** Thrown by `apply`: this one event can never be processed. It goes to the dead-letter topic, the others go on. */
export class PoisonError extends Error {
  readonly record: BusRecord;
  constructor(record: BusRecord, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "PoisonError";
    this.record = record;
  }
}

/** How often a batch is tried before its records are tried one by one. */
const batchAttempts = 5;
/** Most spans that the span of a batch links to. */
const maxLinks = 32;
/** Most characters of an error's message in a dead letter. */
const maxErrorText = 1_000;

/**
 * Reads the events of one type and applies them, so that no single event can stop the rest:
 * - An event that can't be decoded, or that `apply` refuses with {@link PoisonError}, goes to the dead-letter topic
 *   `<topic>.dead` with the headers `dead-topic`, `dead-partition`, `dead-offset` and `dead-error`.
 * - A passing failure (database, network, overload) is tried again for as long as it lasts; nothing is dead-lettered.
 * - Any other failure is tried five times; then the events are applied one by one and those that fail are dead-lettered.
 *
 * A dead letter is written once, unless the process dies before the position moves on: then possibly again, with the same
 * `dead-` headers.
 */
export function createConsumer<Desc extends DescMessage>(options: ConsumerOptions<Desc>): Promise<Subscription> {
  const consumer = new Consumer(options);
  return options.bus.subscribe({
    topics: [topicOf(options.desc).name],
    reader: options.reader,
    handle: (batch) => consumer.handle(batch),
    ...(options.onHeartbeat && { onHeartbeat: options.onHeartbeat }),
    ...(options.maxBatchRecords && { maxBatchRecords: options.maxBatchRecords }),
  });
}

/** What is remembered of a partition from the position on: how often its next batch failed, and which records are buried. */
interface Progress {
  firstOffset: bigint;
  failures: number;
  readonly dead: Set<bigint>;
}

class Consumer<Desc extends DescMessage> {
  readonly #options: ConsumerOptions<Desc>;
  readonly #deadTopic: string;
  readonly #deadLetters = metrics.getMeter("licet.events").createCounter("licet.events.dead_letters", {
    description: "Events that could not be processed and went to the dead-letter topic",
  });
  readonly #progress = new Map<number, Progress>();

  constructor(options: ConsumerOptions<Desc>) {
    this.#options = options;
    this.#deadTopic = deadLetterTopic(topicOf(options.desc)).name;
  }

  handle(batch: Batch): Promise<void> {
    const tracer = trace.getTracer("licet.events");
    const links = batch.records.slice(0, maxLinks).flatMap(linkTo);
    const attributes = {
      "messaging.operation.type": "process",
      "messaging.destination.name": batch.topic,
      "messaging.destination.partition.id": String(batch.partition),
      "messaging.batch.message_count": batch.records.length,
    };
    const span = { kind: SpanKind.CONSUMER, links, attributes };
    return tracer.startActiveSpan(`process ${batch.topic}`, span, async (current) => {
      try {
        await this.#applyBatch(batch);
      } catch (error) {
        current.setStatus({ code: SpanStatusCode.ERROR });
        throw error;
      } finally {
        current.end();
      }
    });
  }

  async #applyBatch(batch: Batch): Promise<void> {
    const progress = this.#progressOf(batch);
    const messages: Consumed<Desc>[] = [];
    for (const record of batch.records) {
      const message = await this.#decode(record, progress);
      if (message !== undefined) messages.push({ record, message });
    }
    try {
      await this.#applyWithoutPoison(messages, batch, progress);
    } catch (error) {
      if (isTransient(error) || ++progress.failures < batchAttempts || messages.length === 0) throw error;
      this.#options.logger.error({ err: error, topic: batch.topic }, "a batch keeps failing; its events go one by one");
      await this.#applySingly(messages, batch, progress);
    }
    advance(progress, batch.nextOffset);
  }

  #progressOf({ partition, firstOffset }: Batch): Progress {
    const known = this.#progress.get(partition);
    // Deliveries of the same records can be cut differently, or go on from within a batch that was applied in part.
    if (known !== undefined && known.firstOffset <= firstOffset) return advance(known, firstOffset);
    const progress = { firstOffset, failures: 0, dead: new Set<bigint>() };
    this.#progress.set(partition, progress);
    return progress;
  }

  async #decode(record: BusRecord, progress: Progress): Promise<MessageShape<Desc> | undefined> {
    if (progress.dead.has(record.offset)) return undefined;
    try {
      return fromBinary(this.#options.desc, record.value);
    } catch (error) {
      await this.#bury(record, error, progress);
      return undefined;
    }
  }

  /** Applies the messages, and again without each one that turns out to be poison. */
  async #applyWithoutPoison(messages: readonly Consumed<Desc>[], batch: Batch, progress: Progress): Promise<void> {
    let rest = messages;
    for (;;) {
      try {
        return await this.#options.apply(rest, batch);
      } catch (error) {
        if (!(error instanceof PoisonError) || !rest.some(({ record }) => record === error.record)) throw error;
        await this.#bury(error.record, error, progress);
        rest = rest.filter(({ record }) => record !== error.record);
      }
    }
  }

  async #applySingly(messages: readonly Consumed<Desc>[], batch: Batch, progress: Progress): Promise<void> {
    let firstOffset = batch.firstOffset;
    for (const [index, message] of messages.entries()) {
      batch.signal.throwIfAborted();
      const { record } = message;
      // The last one also takes the position past dead letters and gaps behind it.
      const nextOffset = index === messages.length - 1 ? batch.nextOffset : record.offset + 1n;
      const single: Batch = { ...batch, records: [record], firstOffset, nextOffset };
      try {
        await this.#applyWithoutPoison([message], single, progress);
      } catch (error) {
        if (isTransient(error)) throw error;
        await this.#bury(record, error, progress);
        await this.#options.apply([], single);
      }
      firstOffset = nextOffset;
    }
  }

  async #bury(record: BusRecord, cause: unknown, progress: Progress): Promise<void> {
    const { topic, partition, offset, key, headers, value } = record;
    if (progress.dead.has(offset)) return;
    const place = { topic, partition, offset: String(offset) };
    this.#options.logger.error(
      { err: cause, ...place },
      "an event can't be processed; it goes to the dead-letter topic",
    );
    const text = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    await this.#options.bus.publish([
      {
        topic: this.#deadTopic,
        key,
        value,
        headers: {
          ...headers,
          "dead-topic": topic,
          "dead-partition": String(partition),
          "dead-offset": String(offset),
          "dead-error": text.slice(0, maxErrorText).replaceAll("\0", "").toWellFormed(),
        },
      },
    ]);
    progress.dead.add(offset);
    this.#deadLetters.add(1, { "messaging.destination.name": topic });
  }
}

/** Forgets what lies before the position, and the failures once it has moved. */
function advance(progress: Progress, position: bigint): Progress {
  if (progress.firstOffset === position) return progress;
  progress.firstOffset = position;
  progress.failures = 0;
  for (const offset of progress.dead) if (offset < position) progress.dead.delete(offset);
  return progress;
}

function linkTo(record: BusRecord): Link[] {
  const spanContext = trace.getSpanContext(propagation.extract(context.active(), record.headers));
  return spanContext === undefined ? [] : [{ context: spanContext }];
}

/** Codes of calls to other services that may succeed later. */
const transientCodes: ReadonlySet<Code> = new Set([
  "UNAVAILABLE",
  "ABORTED",
  "DEADLINE_EXCEEDED",
  "RESOURCE_EXHAUSTED",
  "CANCELLED",
]);
/** Whether the same work may succeed later without anything being changed. Looks at the causes as well. */
export function isTransient(error: unknown): boolean {
  if (error instanceof StalePositionError || isPassingError(error)) return true;
  if (error instanceof ServiceError && transientCodes.has(error.code)) return true;
  return error instanceof Error && error.cause !== undefined && isTransient(error.cause);
}
