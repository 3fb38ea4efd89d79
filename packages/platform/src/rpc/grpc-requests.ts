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

/** A call that waits for its one request. */
export interface Waiting {
  readonly stream: ServerHttp2Stream;
  /** After how many milliseconds its caller gives up; Infinity: not said. */
  readonly timeoutMs: number;
}

/** What becomes of the request that a call waits for. */
export interface Outcome<Call extends Waiting> {
  begin(call: Call, request: Buffer): void;
  refuse(call: Call, error: ServiceError): void;
}

/**
 * What takes the one request of each call of a route, and waits for it no longer than the call's deadlines.
 *
 * A small call costs what node:http2 makes for it, and what is kept for as long as node:http2 keeps its stream, which is
 * until the next full collection of garbage. So listeners are functions that all calls share, and what waits is reached by
 * the stream only while it waits.
 */
export function createReceiver<Call extends Waiting>(
  route: Route,
  arrivals: Arrivals,
  outcome: Outcome<Call>,
): (call: Call) => void {
  const { deadlineMs } = readPolicy(route.method);
  const arrivalMs = deadlineMs === 0 ? MAX_TIMER_MS : Math.min(deadlineMs, MAX_TIMER_MS);
  const receiving: Receiving<Call> = { route, arrivalMs, arrivals, outcome };
  return (call) => {
    const stream: Received = call.stream;
    const reception = new Reception(call, receiving);
    stream[receptionOf] = reception;
    stream.on("data", take).on("end", whole).on("close", letGo);
    waitLater(reception);
  };
}

const receptionOf = Symbol("reception");

/** A stream, with what waits for its request as long as it does. */
interface Received extends ServerHttp2Stream {
  [receptionOf]?: Pick<Reception<Waiting>, "take" | "whole" | "letGo"> | undefined;
}

function take(this: Received, chunk: Buffer): void {
  // What comes behind a refusal goes nowhere, but is read for the connection's other calls.
  this[receptionOf]?.take(chunk);
}

function whole(this: Received): void {
  this[receptionOf]?.whole();
}

function letGo(this: Received): void {
  this[receptionOf]?.letGo();
}

/** What the receptions of a route have in common. */
interface Receiving<Call extends Waiting> {
  readonly route: Route;
  /** For how long, in milliseconds, a call waits. Read once: an option of a descriptor costs as much as a small call. */
  readonly arrivalMs: number;
  readonly arrivals: Arrivals;
  readonly outcome: Outcome<Call>;
}

/** What has arrived of a request. */
class Reception<Call extends Waiting> {
  readonly #call: Call;
  readonly #receiving: Receiving<Call>;
  readonly #frames: Frames;
  #request: Buffer | undefined;
  #held = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(call: Call, receiving: Receiving<Call>) {
    this.#call = call;
    this.#receiving = receiving;
    this.#frames = new Frames(receiving.route.maxRequestBytes);
  }

  take(chunk: Buffer): void {
    this.#held += chunk.length;
    this.#frames.add(chunk);
    if (!this.#receiving.arrivals.hold(chunk.length)) this.#refuse(crowded());
    else this.#look();
  }

  whole(): void {
    const { route, outcome } = this.#receiving;
    this.letGo();
    if (this.#request === undefined) outcome.refuse(this.#call, notOne(route.name));
    else outcome.begin(this.#call, this.#request);
  }

  /** Waits no longer: the request is here, or never will be. */
  letGo(): void {
    clearTimeout(this.#timer);
    this.#receiving.arrivals.letGo(this.#held);
    const stream: Received = this.#call.stream;
    stream[receptionOf] = undefined;
  }

  /** Begins to look at the clock, unless the request has arrived in the turn of its headers, or its caller has left. */
  wait(): void {
    const stream: Received = this.#call.stream;
    if (stream[receptionOf] === undefined) return;
    const { timeoutMs } = this.#call;
    const patienceMs = Math.min(timeoutMs, this.#receiving.arrivalMs);
    this.#timer = setTimeout(() => this.#refuse(patienceMs === timeoutMs ? timeUp() : late()), patienceMs);
  }

  #look(): void {
    try {
      this.#request ??= this.#frames.next();
      if (this.#request !== undefined && this.#frames.held > 0) this.#refuse(notOne(this.#receiving.route.name));
    } catch (error) {
      // It says nothing but what is wrong with the request.
      this.#refuse(error as ServiceError);
    }
  }

  #refuse(error: ServiceError): void {
    this.#receiving.outcome.refuse(this.#call, error);
    this.letGo();
  }
}

let begun: Pick<Reception<Waiting>, "wait">[] = [];

/** Has a reception wait when this turn is over. Most requests arrive with their headers, and a timer costs more than they do. */
function waitLater(reception: Pick<Reception<Waiting>, "wait">): void {
  if (begun.length === 0) setImmediate(waitAll);
  begun.push(reception);
}

function waitAll(): void {
  const all = begun;
  begun = [];
  for (const reception of all) reception.wait();
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
