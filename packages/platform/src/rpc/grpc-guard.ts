import { platformError, type ServiceError } from "../errors.ts";

/** The most metadata of one call, in bytes of names and values. */
export const MAX_METADATA_BYTES = 8 * 1024;
/** The most bytes that the calls of one server hold of requests that have not arrived whole. */
const MAX_ARRIVING_BYTES = 32 * 1024 * 1024;
/** How long a caller is asked to wait when that much is held, in milliseconds. */
const RETRY_AFTER_MS = 250;

/** What the calls of one server hold of requests that have not arrived whole. */
export interface Arrivals {
  /** Adds what has arrived of one; false: that is too much, and the call is to be refused. */
  hold(bytes: number): boolean;
  /** Takes off what a call has held. */
  letGo(bytes: number): void;
}

/** Starts with nothing; together they may hold so many bytes. */
export function createArrivals(maxBytes = MAX_ARRIVING_BYTES): Arrivals {
  let arriving = 0;
  return {
    hold(bytes) {
      arriving += bytes;
      return arriving <= maxBytes;
    },
    letGo(bytes) {
      arriving -= bytes;
    },
  };
}

/** The error of a call of one message with none, or with more than one. */
export function notOne(name: string): ServiceError {
  return platformError("MALFORMED_MESSAGE", `${name} takes one message, neither none nor several`);
}

/** The error of a call whose caller's deadline has passed. */
export function timeUp(): ServiceError {
  return platformError("DEADLINE_EXCEEDED", "the call's deadline passed");
}

/** The error of a call whose request has taken as long as its method may take. */
export function late(): ServiceError {
  return platformError("DEADLINE_EXCEEDED", "the request did not arrive in time");
}

/** The error of a call whose deadline can't be read. */
export function noTimeout(): ServiceError {
  return platformError("MALFORMED_MESSAGE", "grpc-timeout must be 1 to 8 digits and a unit: H, M, S, m, u or n");
}

/** The error of a call with so many bytes of metadata. */
export function tooMuchMetadata(bytes: number): ServiceError {
  return platformError(
    "MESSAGE_TOO_LARGE",
    `the call's metadata has ${bytes} bytes; at most ${MAX_METADATA_BYTES} are taken`,
  );
}

/** The error of a call whose messages are compressed, or of one that is. */
export function compressed(): ServiceError {
  return platformError("MALFORMED_MESSAGE", "grpc-encoding must be identity: compressed messages are not taken");
}

/** The error of a call whose request would exceed what all may hold. */
export function crowded(): ServiceError {
  return platformError("OVERLOADED", "too many requests are arriving at once; try again", {
    retryAfterMs: RETRY_AFTER_MS,
  });
}
