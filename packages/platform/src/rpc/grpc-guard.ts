import type { Readable } from "node:stream";
import * as grpc from "@grpc/grpc-js";
import { platformError, type ServiceError } from "../errors.ts";
import { readPolicy } from "./call.ts";
import { tooLarge } from "./codec.ts";
import { DETAILS_KEY, metadataBytes, toGrpcStatus } from "./metadata.ts";
import type { Route } from "./pipeline.ts";

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

type PartialStatus = Pick<grpc.StatusObject, "code" | "details"> & { readonly metadata?: grpc.Metadata | null };

/**
 * The innermost call of grpc-js, with the parts of it that have no public way to them: its limit per message is one for the
 * whole server, and what it can't read it answers by itself, in words and codes of its own. The tests of this file fail
 * when a release of grpc-js changes them.
 */
interface ArrivingCall {
  readonly stream: Readable;
  readonly decoder: { maxReadMessageLength: number };
  readonly incomingEncoding: string;
  sendStatus(status: PartialStatus): void;
}

/**
 * Guards what stands between the wire and our pipeline. Before any handler or credential is looked at, it refuses calls
 *
 * - with more metadata, or a larger message, than their method takes;
 * - that are compressed: a few bytes of them can become any number;
 * - whose request does not arrive in time: without a client's deadline, grpc-js would wait for it for ever;
 * - beyond the memory that all half-arrived requests may hold together;
 *
 * and gives the refusals that grpc-js itself makes the codes and reasons of ours.
 */
export function guardArrival(routes: readonly Route[], arrivals: Arrivals): grpc.ServerInterceptor {
  // Read once: looking up an option of a descriptor costs as much as a small call.
  const byPath = new Map(
    routes.map((route) => [`/${route.name}`, { route, deadlineMs: readPolicy(route.method).deadlineMs }]),
  );
  return (method, call) => {
    const known = byPath.get(method.path);
    // Interceptors run for methods that were registered, which are those of the routes.
    if (known === undefined) throw new Error(`${method.path} has no route`);
    const { route, deadlineMs } = known;
    const innermost = call as unknown as ArrivingCall;
    translateStatuses(innermost, route);
    innermost.decoder.maxReadMessageLength = route.maxRequestBytes;

    const refuse = (error: ServiceError, trailers?: Headers) => innermost.sendStatus(toGrpcStatus(error, trailers));
    let held = 0;
    const letGo = () => {
      arrivals.letGo(held);
      held = 0;
    };
    const hold = (chunk: Buffer) => {
      held += chunk.length;
      if (!arrivals.hold(chunk.length)) refuse(crowded());
    };
    const arrivalMs = method.requestStream ? 0 : deadlineMs;
    let timer: NodeJS.Timeout | undefined;
    const arrived = () => {
      clearTimeout(timer);
      letGo();
    };
    return new grpc.ServerInterceptingCall(call, {
      start(next) {
        next({
          onReceiveMetadata(metadata, proceed) {
            const bytes = metadataBytes(metadata);
            if (innermost.incomingEncoding !== "identity") return refuse(compressed(), identityOnly);
            if (bytes > MAX_METADATA_BYTES) return refuse(tooMuchMetadata(bytes));
            if (arrivalMs > 0) timer = setTimeout(() => refuse(late()), arrivalMs);
            innermost.stream.on("data", hold);
            innermost.stream.once("close", letGo);
            proceed(metadata);
          },
          onReceiveMessage(message, proceed) {
            // The next message of a stream is read only when the handler asks for it.
            if (method.requestStream) letGo();
            proceed(message);
          },
          onReceiveHalfClose(proceed) {
            arrived();
            proceed();
          },
          onCancel() {
            innermost.stream.off("data", hold);
            arrived();
          },
        });
      },
      sendMetadata(metadata, next) {
        metadata.set("grpc-accept-encoding", "identity");
        next(metadata);
      },
    });
  };
}

const identityOnly = new Headers({ "grpc-accept-encoding": "identity" });

/** Gives a status that grpc-js made, which has no details, the code and reason that we answer such a request with. */
function translateStatuses(call: ArrivingCall, route: Route): void {
  const send = call.sendStatus;
  call.sendStatus = (status) => {
    const foreign = status.code !== grpc.status.OK && !status.metadata?.get(DETAILS_KEY).length;
    const error = foreign ? translate(status, route) : undefined;
    send.call(call, error === undefined ? status : toGrpcStatus(error));
  };
}

function translate({ code, details }: PartialStatus, route: Route): ServiceError | undefined {
  switch (code) {
    case grpc.status.RESOURCE_EXHAUSTED:
      return tooLarge(route.maxRequestBytes);
    case grpc.status.DEADLINE_EXCEEDED:
      return timeUp();
    case grpc.status.UNIMPLEMENTED:
      return notOne(route.name);
    case grpc.status.INTERNAL:
      if (!details?.includes("grpc-timeout")) return undefined;
      return platformError("MALFORMED_MESSAGE", "grpc-timeout must be 1 to 8 digits and a unit: H, M, S, m, u or n");
    default:
      return undefined;
  }
}

/** The error of a unary call with no message, or with more than one. */
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

function tooMuchMetadata(bytes: number): ServiceError {
  return platformError(
    "MESSAGE_TOO_LARGE",
    `the call's metadata has ${bytes} bytes; at most ${MAX_METADATA_BYTES} are taken`,
  );
}

function compressed(): ServiceError {
  return platformError("MALFORMED_MESSAGE", "grpc-encoding must be identity: compressed messages are not taken");
}

/** The error of a call whose request would exceed what all may hold. */
export function crowded(): ServiceError {
  return platformError("OVERLOADED", "too many requests are arriving at once; try again", {
    retryAfterMs: RETRY_AFTER_MS,
  });
}
