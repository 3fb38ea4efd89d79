import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { metrics, type ObservableResult } from "@opentelemetry/api";
import type { Kafka } from "kafkajs";
import type { Logger } from "../logging.ts";
import { redeliveryDelayMs, type SubscribeOptions, type Subscription } from "./bus.ts";
import { createCondition } from "./condition.ts";
import { type KafkaAdmin, type PartitionBounds, placeKey } from "./kafka-client.ts";
import type { KafkaPartitionReader } from "./kafka-reader.ts";
import { runKafkaSession } from "./kafka-session.ts";

/** How often a member looks how far the other members of its group are, while somebody waits for them. */
const groupPollMs = 50;
/** How often the ends of the partitions are looked at, for the lag. */
const lagPollMs = 5_000;

/** What {@link startKafkaSubscription} needs: the clients of its bus, and what is read. */
export interface KafkaSubscriptionOptions {
  readonly kafka: Kafka;
  readonly admin: KafkaAdmin;
  readonly subscription: SubscribeOptions;
  readonly logger: Logger;
  /** Aborts when the bus stops. */
  readonly signal: AbortSignal;
}

/** Starts to read; resolves when the group has been joined. */
export async function startKafkaSubscription(options: KafkaSubscriptionOptions): Promise<Subscription> {
  // Fails at once when Kafka can't be reached; later it is waited for.
  const bounds = await options.admin.bounds(options.subscription.topics);
  const subscription = new KafkaSubscription(options, bounds);
  await subscription.begun;
  return subscription;
}

class KafkaSubscription implements Subscription {
  readonly begun: Promise<void>;
  readonly #options: KafkaSubscriptionOptions;
  readonly #stopping = new AbortController();
  readonly #signal: AbortSignal;
  readonly #changed = createCondition();
  readonly #ended: Promise<unknown>;
  // Not made when the module is loaded: then telemetry has not been started.
  readonly #lag = metrics.getMeter("licet.events").createObservableGauge("licet.events.lag", {
    description: "Records between a reader's position and the end of its partition, heartbeats among them",
    unit: "{record}",
  });
  /** Where one that reads all goes on when it has to join again. */
  readonly #positions = new Map<string, bigint>();
  #readers: ReadonlyMap<string, KafkaPartitionReader> = new Map();
  #ends: readonly PartitionBounds[];

  constructor(options: KafkaSubscriptionOptions, bounds: readonly PartitionBounds[]) {
    this.#options = options;
    this.#ends = bounds;
    this.#signal = AbortSignal.any([options.signal, this.#stopping.signal]);
    const begun = Promise.withResolvers<void>();
    this.begun = begun.promise;
    this.#signal.addEventListener("abort", () => begun.resolve());
    this.#ended = Promise.all([this.#run(begun.resolve, bounds.length), this.#followEnds()]);
  }

  async caughtUp(): Promise<void> {
    const { admin, subscription } = this.#options;
    const { topics, reader } = subscription;
    this.#signal.throwIfAborted();
    const targets = await admin.bounds(topics);
    const group = reader.kind === "group" ? reader.group : undefined;
    for (;;) {
      this.#signal.throwIfAborted();
      // Between a look and the wait nothing may be missed, so the own readers are looked at last.
      const others = group === undefined ? new Map<string, bigint>() : await admin.committed(group, topics);
      const behind = targets.filter((target) => !this.#hasReached(target, others));
      if (behind.length === 0) return;
      const own = behind.every((target) => this.#readers.has(placeKey(target)));
      await this.#changed.wait(own ? this.#signal : AbortSignal.any([this.#signal, AbortSignal.timeout(groupPollMs)]));
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error("the subscription was stopped"));
    await this.#ended;
  }

  #hasReached(target: PartitionBounds, others: ReadonlyMap<string, bigint>): boolean {
    const key = placeKey(target);
    const reader = this.#readers.get(key);
    const position = reader === undefined ? others.get(key) : reader.cursor;
    // Nothing is left to read of a partition whose records retention has removed.
    return target.offset === target.low || (position !== undefined && position >= target.offset);
  }

  /** Keeps up a membership in the group until the subscription stops. */
  async #run(onBegun: () => void, partitions: number): Promise<void> {
    const { logger, subscription } = this.#options;
    let failures = 0;
    this.#lag.addCallback(this.#observeLag);
    while (!this.#signal.aborted) {
      try {
        await this.#runSession(partitions, () => {
          failures = 0;
          onBegun();
        });
      } catch (error) {
        if (this.#signal.aborted) break;
        const retryMs = redeliveryDelayMs(failures);
        failures++;
        logger.warn(
          { err: error, topics: subscription.topics, retryMs },
          "reading was interrupted; it will begin again",
        );
        await delay(retryMs, undefined, { signal: this.#signal }).catch(() => undefined);
      }
    }
    this.#lag.removeCallback(this.#observeLag);
  }

  async #runSession(partitions: number, onJoined: () => void): Promise<void> {
    const { kafka, admin, subscription, logger } = this.#options;
    const { reader } = subscription;
    // kafkajs knows no reading without a group: whoever reads all is the only member of a group of its own.
    const group = reader.kind === "group" ? reader.group : `licet-all-${randomUUID()}`;
    const session = {
      kafka,
      group,
      subscription,
      logger: logger.child({ group }),
      partitions,
      load: (place: { topic: string; partition: number }) => this.#load(place),
      bounds: async (place: { topic: string; partition: number }) => {
        const found = (await admin.bounds([place.topic])).find(({ partition }) => partition === place.partition);
        if (found === undefined) throw new Error(`Kafka does not know the partition ${placeKey(place)}`);
        return found;
      },
      remember: (place: { topic: string; partition: number }, offset: bigint) =>
        void this.#positions.set(placeKey(place), offset),
      onAssigned: (readers: ReadonlyMap<string, KafkaPartitionReader>) => {
        this.#readers = readers;
        this.#changed.notify();
        onJoined();
      },
      onProgress: () => this.#changed.notify(),
    };
    try {
      await runKafkaSession(session, this.#signal);
    } finally {
      this.#readers = new Map();
      if (reader.kind === "all") {
        // Otherwise Kafka forgets it by itself, some time later.
        await admin
          .deleteGroup(group)
          .catch((error: unknown) => logger.debug({ err: error }, "a group was left behind"));
      }
    }
  }

  async #load(place: { topic: string; partition: number }): Promise<bigint> {
    const { admin, subscription } = this.#options;
    const { reader } = subscription;
    if (reader.kind === "group") {
      if (reader.loadOffset !== undefined) return reader.loadOffset(place.topic, place.partition);
      return (await admin.committed(reader.group, [place.topic])).get(placeKey(place)) ?? 0n;
    }
    const from = reader.from === "beginning" ? [] : reader.from;
    const given = from.find(({ topic, partition }) => topic === place.topic && partition === place.partition);
    return this.#positions.get(placeKey(place)) ?? given?.offset ?? 0n;
  }

  async #followEnds(): Promise<void> {
    const { admin, subscription, logger } = this.#options;
    for (;;) {
      await delay(lagPollMs, undefined, { signal: this.#signal }).catch(() => undefined);
      if (this.#signal.aborted) return;
      try {
        this.#ends = await admin.bounds(subscription.topics);
      } catch (error) {
        logger.debug({ err: error }, "the lag is not known");
      }
    }
  }

  readonly #observeLag = (result: ObservableResult): void => {
    const { reader } = this.#options.subscription;
    for (const end of this.#ends) {
      const cursor = this.#readers.get(placeKey(end))?.cursor;
      if (cursor === undefined) continue;
      result.observe(Number(end.offset > cursor ? end.offset - cursor : 0n), {
        "messaging.destination.name": end.topic,
        "messaging.destination.partition.id": String(end.partition),
        // The groups of those that read all are new each time: no label for them.
        "messaging.consumer.group.name": reader.kind === "group" ? reader.group : "all",
      });
    }
  };
}
