import { setTimeout as delay } from "node:timers/promises";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { TrustedClock } from "./clock.ts";
import type { Connection } from "./connection.ts";
import { LicetError } from "./errors.ts";
import type { WatchedFacts } from "./facts.ts";

/** After so many milliseconds without a message a stream is taken for dead: heartbeats come each second. */
const SILENCE_MS = 10_000;
/** The first pause before a watch is opened again is at most this long, in milliseconds; each further one twice as long. */
const FIRST_PAUSE_MS = 100;
const MAX_PAUSE_MS = 10_000;
/**
 * Where the clock may be further ahead than this, in milliseconds, because the first state took long to come or the machine's
 * clock was set, it is told anew: by a stream that goes on where the one before it is left.
 */
const MAX_CLOCK_ERROR_MS = 5_000;
/** A stream is left for that so long after its beginning at the earliest, in milliseconds, where it was not the first. */
const MIN_STREAM_MS = 60_000;
/** How often a stream is looked at, in milliseconds. */
const LOOK_MS = 1_000;

/** What {@link keepWatching} needs. */
export interface WatchOptions {
  readonly connection: Connection;
  readonly facts: WatchedFacts;
  readonly clock: TrustedClock;
  /** The customers watched; empty: all of the tenant. */
  readonly customerIds: readonly string[];
  /** Called behind each message, and with the error behind each stream that ended. */
  readonly onProgress: (error?: LicetError) => void;
  readonly random?: () => number;
}

/**
 * Watches until the signal aborts, one stream after the other: behind one that ends comes the next, after a pause with full
 * jitter, from where the last one ended.
 *
 * @throws {LicetError} what no repetition mends: a key that is refused, more customers than can be held.
 */
export async function keepWatching(options: WatchOptions, signal: AbortSignal): Promise<void> {
  const { facts, onProgress, random = Math.random } = options;
  let failures = 0;
  while (!signal.aborted) {
    const end = await watchOnce(options, signal);
    if (signal.aborted) return;
    if (end.synchronized) failures = 0;
    if (end.error === undefined) continue;
    if (isTokenRefused(end.error, facts)) facts.resumeToken = "";
    else if (isFinal(end.error)) throw end.error;
    onProgress(end.error);
    const pauseMs = random() * Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures, 10));
    failures += 1;
    // An abort only ends the pause.
    await delay(pauseMs + (end.error.retryAfterMs ?? 0), undefined, { signal }).catch(() => undefined);
  }
}

/** How a stream ended. */
interface StreamEnd {
  /** Whether all that is watched was told by it. */
  readonly synchronized: boolean;
  /** Undefined: it was left in order to be opened again at once. */
  readonly error: LicetError | undefined;
}

async function watchOnce(options: WatchOptions, signal: AbortSignal): Promise<StreamEnd> {
  const { connection, facts, clock, customerIds, onProgress } = options;
  const askedAt = clock.machine();
  const request = { customerIds: [...customerIds], resumeToken: facts.resumeToken };
  const isFirst = facts.resumeToken === "";
  let synchronized = false;
  let heardAt = askedAt;
  const leave = new AbortController();
  const look = (): void => {
    const at = clock.machine();
    if (at.steadyMs - heardAt.steadyMs > SILENCE_MS) leave.abort(ended(`nothing was heard for ${SILENCE_MS} ms`));
    const mayLeave = synchronized && (isFirst || at.steadyMs - askedAt.steadyMs > MIN_STREAM_MS);
    if (mayLeave && clock.errorMs() > MAX_CLOCK_ERROR_MS) leave.abort();
  };
  const timer = setInterval(look, LOOK_MS).unref();
  const call = { signal: AbortSignal.any([signal, leave.signal]) };
  try {
    for await (const message of connection.serverStream(ValidationService.method.watchEntitlements, request, call)) {
      heardAt = clock.machine();
      facts.apply(message, askedAt);
      if (message.content.case === "synchronized") synchronized = true;
      onProgress();
    }
    return { synchronized, error: ended("the server ended the watch") };
  } catch (error) {
    if (leave.signal.aborted)
      return { synchronized, error: leave.signal.reason instanceof LicetError ? leave.signal.reason : undefined };
    if (error instanceof LicetError) return { synchronized, error };
    throw error;
  } finally {
    clearInterval(timer);
  }
}

function isTokenRefused({ code }: LicetError, { resumeToken }: WatchedFacts): boolean {
  return code === "INVALID_ARGUMENT" && resumeToken !== "";
}

function isFinal({ code, reason }: LicetError): boolean {
  const refused = code === "UNAUTHENTICATED" || code === "PERMISSION_DENIED" || code === "INVALID_ARGUMENT";
  return refused || reason === "TOO_MANY_CUSTOMERS";
}

function ended(message: string): LicetError {
  return new LicetError({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE", message });
}
