import { type Batch, halve } from "./encode.ts";

/** What became of one attempt to send a batch. */
export type Sent =
  /** It is durable, and will be counted once. */
  | { readonly kind: "ACCEPTED" }
  /** It will never be taken as it is; none of its events was. */
  | { readonly kind: "REFUSED"; readonly error: Error }
  /** It may be taken later, not before `retryAfterMs`; it may have been taken all the same. */
  | { readonly kind: "LATER"; readonly error: Error; readonly retryAfterMs: number };

/** Sends a batch, once. Never rejects. */
export type Send = (batch: Batch, signal: AbortSignal) => Promise<Sent>;

/** What {@link deliver} needs beside the batch. */
export interface Delivery {
  readonly send: Send;
  /** Ends it: what was not delivered by then stays with the caller. */
  readonly signal: AbortSignal;
  /** Between 0 and 1, for the pauses. */
  readonly random: () => number;
  /** Waits; an abort of the signal ends the wait. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  /** Told about each attempt that failed and will be repeated. */
  onRetry(error: Error): void;
  /** Told about each event that was refused for good. */
  onRefused(error: Error): void;
}

/** Pauses are random up to a bound that doubles with each failure in a row, from the first of these to the second. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 30_000;

/**
 * Sends a batch until all its events are taken or refused. The same bytes are sent each time, so that events keep their ids
 * and count once whatever became of earlier attempts. A batch with an event that is refused is taken apart until that one
 * is alone: one bad event costs at most twenty requests more, and none of the others.
 *
 * @returns how many of its events, from the first on, need nothing more: all, unless the signal was aborted.
 */
export async function deliver(batch: Batch, delivery: Delivery): Promise<number> {
  const { send, signal, random, sleep } = delivery;
  for (let failures = 0; !signal.aborted; failures++) {
    const sent = await send(batch, signal);
    if (sent.kind === "ACCEPTED") return batch.count;
    if (sent.kind === "REFUSED") return takeApart(batch, sent.error, delivery);
    if (signal.aborted) break;
    delivery.onRetry(sent.error);
    const pauseMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
    await sleep(sent.retryAfterMs + random() * pauseMs, signal);
  }
  return 0;
}

async function takeApart(batch: Batch, error: Error, delivery: Delivery): Promise<number> {
  if (batch.count === 1) {
    delivery.onRefused(error);
    return 1;
  }
  const [first, second] = halve(batch);
  const settled = await deliver(first, delivery);
  return settled < first.count ? settled : settled + (await deliver(second, delivery));
}
