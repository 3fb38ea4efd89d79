import type { ServerHttp2Stream } from "node:http2";
import type { Message } from "@bufbuild/protobuf";
import { platformError, type ServiceError } from "../errors.ts";
import { readPolicy } from "./call.ts";
import { decodeRequest } from "./codec.ts";
import { Frames } from "./grpc-frames.ts";
import { type Arrivals, crowded, late, notOne, timeUp } from "./grpc-guard.ts";
import type { Route } from "./pipeline.ts";

/** The longest timer that JavaScript has, in milliseconds. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A method that takes one message, and for how long, in milliseconds, a call waits for it. */
export interface SingleTarget {
  readonly route: Route;
  readonly arrivalMs: number;
}

/** Reads once what a route says of arrival: looking up an option of a descriptor costs as much as a small call. */
export function toSingleTarget(route: Route): SingleTarget {
  const { deadlineMs } = readPolicy(route.method);
  return { route, arrivalMs: deadlineMs === 0 ? MAX_TIMER_MS : Math.min(deadlineMs, MAX_TIMER_MS) };
}

/** What becomes of a request that a call waits for. */
export interface Outcome {
  begin(request: Buffer): void;
  refuse(error: ServiceError): void;
}

/** Waits for the one request of a call to arrive, and no longer than its deadlines. */
export function receiveOne(
  stream: ServerHttp2Stream,
  { route, arrivalMs }: SingleTarget,
  timeoutMs: number,
  arrivals: Arrivals,
  outcome: Outcome,
): void {
  const frames = new Frames(route.maxRequestBytes);
  let request: Buffer | undefined;
  let held = 0;
  const letGo = (): void => {
    clearTimeout(timer);
    arrivals.letGo(held);
    held = 0;
  };
  const refuse = (error: ServiceError): void => {
    outcome.refuse(error);
    letGo();
    // What still comes goes nowhere, but has to be read for the connection's other calls.
    stream.off("data", take).off("end", whole).resume();
  };
  const take = (chunk: Buffer): void => {
    held += chunk.length;
    frames.add(chunk);
    if (!arrivals.hold(chunk.length)) refuse(crowded());
    else look();
  };
  const look = (): void => {
    try {
      request ??= frames.next();
      if (request !== undefined && frames.held > 0) refuse(notOne(route.name));
    } catch (error) {
      // It says nothing but what is wrong with the request.
      refuse(error as ServiceError);
    }
  };
  const whole = (): void => {
    letGo();
    if (request === undefined) outcome.refuse(notOne(route.name));
    else outcome.begin(request);
  };
  const patienceMs = Math.min(timeoutMs, arrivalMs);
  const timer = setTimeout(() => refuse(patienceMs === timeoutMs ? timeUp() : late()), patienceMs);
  stream.on("data", take);
  stream.on("end", whole);
  stream.on("close", letGo);
}

/**
 * The requests of a call that takes a stream of them, decoded as the handler asks for them. What it does not ask for stays
 * in the stream, whose window then closes: the caller sends no more than that.
 *
 * @throws {ServiceError} MESSAGE_TOO_LARGE, MALFORMED_MESSAGE or INVALID_FIELD for one that can't be taken, OVERLOADED when
 *   all calls hold too much, CANCELLED when the caller is gone before the end.
 */
export async function* receiveAll(
  stream: ServerHttp2Stream,
  route: Route,
  arrivals: Arrivals,
): AsyncGenerator<Message> {
  const frames = new Frames(route.maxRequestBytes);
  let ended = false;
  let gone = false;
  let held = 0;
  let wake = (): void => {};
  const letGo = (): void => {
    arrivals.letGo(held);
    held = 0;
  };
  const hold = (bytes: number): void => {
    letGo();
    // Nobody tells any more when it is let go.
    if (gone) return;
    held = bytes;
    if (!arrivals.hold(bytes)) throw crowded();
  };
  // A stream that is reset ends as well, but is closed by then.
  const end = (): void => {
    ended = !stream.closed;
    wake();
  };
  // A call that is over may leave its requests half read: then nobody comes back here.
  const close = (): void => {
    gone = true;
    letGo();
    wake();
  };
  stream
    .on("readable", () => wake())
    .on("end", end)
    .on("close", close);
  for (;;) {
    for (let bytes = frames.next(); bytes !== undefined; bytes = frames.next()) yield decodeRequest(route, bytes);
    const chunk: Buffer | null = stream.read();
    if (chunk !== null) frames.add(chunk);
    hold(frames.held);
    if (chunk !== null) continue;
    if (ended && frames.held > 0) throw cutOff(route.name);
    if (ended) return;
    if (gone || stream.closed) throw platformError("CANCELLED", "the caller cancelled the call");
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
}

function cutOff(name: string): ServiceError {
  return platformError("MALFORMED_MESSAGE", `the requests of ${name} must end behind a message, not within one`);
}
