import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import type { ServiceError } from "../errors.ts";
import { readPolicy } from "./call.ts";
import { decodeRequest, tooLarge } from "./codec.ts";
import { type Arrivals, crowded, late, MAX_METADATA_BYTES, notOne, timeUp } from "./grpc-guard.ts";
import { fromMetadata, toGrpcStatus, toMetadata } from "./metadata.ts";
import type { Route, RunningCall } from "./pipeline.ts";
import type { OpenCalls } from "./server.ts";

/** Before each message: a byte that says whether it is compressed, which none of ours is, and four of its length. */
const PREFIX_BYTES = 5;

const timeoutPattern = /^([0-9]{1,8})([HMSmun])$/;
const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };
/** The longest timer that JavaScript has, in milliseconds. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** What speaks for the transport only, and is no metadata of the call. */
const transportHeaders = [
  "grpc-timeout",
  "grpc-encoding",
  "grpc-accept-encoding",
  "accept-encoding",
  "te",
  "content-type",
] as const;

const responseHeaders: OutgoingHttpHeaders = {
  ":status": 200,
  "content-type": "application/grpc+proto",
  "grpc-accept-encoding": "identity",
};
const okTrailers: OutgoingHttpHeaders = { "grpc-status": "0", "grpc-message": "OK" };
const withTrailers = { waitForTrailers: true } as const;
const withoutBody = { endStream: true } as const;

/** A route, with its policy read once. */
interface Target {
  readonly route: Route;
  readonly deadlineMs: number;
}

/**
 * Serves unary calls straight on node:http2, which is half of what one costs in grpc-js: there each passes a dozen of
 * objects that are made for streams and interceptors. What is unusual about a call before its message (compression, a
 * timeout that is none, too much metadata, an unknown method) is left to grpc-js and its guard, so that there is one place
 * that refuses it; what is taken here is bounded in the same ways: bytes and time of arrival, one message.
 *
 * @returns takes a call, or says false.
 */
export function serveUnary(
  routes: readonly Route[],
  calls: OpenCalls,
  arrivals: Arrivals,
): (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean {
  const targets = new Map<string | undefined, Target>(
    routes
      .filter(({ method }) => method.methodKind === "unary")
      .map((route) => [`/${route.name}`, { route, deadlineMs: readPolicy(route.method).deadlineMs }]),
  );
  return (stream, headers) => {
    const target = targets.get(headers[":path"]);
    if (target === undefined || !isUsual(headers)) return false;
    const timeout = headers["grpc-timeout"];
    const timeoutMs = timeout === undefined ? Number.POSITIVE_INFINITY : parseTimeout(String(timeout));
    if (timeoutMs === undefined) return false;
    receive(new UnaryCall(target.route, stream, headers, timeoutMs, calls), target, arrivals);
    return true;
  };
}

function isUsual(headers: IncomingHttpHeaders): boolean {
  const type = headers["content-type"];
  if (type !== "application/grpc" && type !== "application/grpc+proto") return false;
  if (headers[":method"] !== "POST") return false;
  const encoding = headers["grpc-encoding"];
  if (encoding !== undefined && encoding !== "identity") return false;
  let bytes = 0;
  // One that a caller may send several times comes as an array, and counts here by what it is joined.
  for (const name in headers) bytes += name.length + String(headers[name]).length;
  return bytes <= MAX_METADATA_BYTES;
}

function parseTimeout(text: string): number | undefined {
  const [, digits, unit = ""] = timeoutPattern.exec(text) ?? [];
  return digits === undefined ? undefined : Math.trunc(Number(digits) * (unitMs[unit] ?? 0));
}

/** Waits for the request to arrive, and no longer than its deadlines, and has it answered. */
function receive(call: UnaryCall, { route, deadlineMs }: Target, arrivals: Arrivals): void {
  const { stream, timeoutMs } = call;
  const chunks: Buffer[] = [];
  let held = 0;
  const letGo = (): void => {
    clearTimeout(timer);
    arrivals.letGo(held);
    held = 0;
  };
  const refuse = (error: ServiceError): void => {
    call.refuse(error);
    letGo();
    // What still comes goes nowhere, but has to be read for the connection's other calls.
    stream.off("data", take).off("end", whole).resume();
  };
  const take = (chunk: Buffer): void => {
    held += chunk.length;
    chunks.push(chunk);
    if (!arrivals.hold(chunk.length)) refuse(crowded());
    else if (held >= PREFIX_BYTES) look(chunk);
  };
  const look = (chunk: Buffer): void => {
    const size = (held === chunk.length ? chunk : Buffer.concat(chunks, PREFIX_BYTES)).readUInt32BE(1);
    if (size > route.maxRequestBytes) refuse(tooLarge(route.maxRequestBytes));
    else if (held > PREFIX_BYTES + size) refuse(notOne(route.name));
  };
  const whole = (): void => {
    const [first] = chunks;
    const bytes = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks);
    letGo();
    if (bytes.length < PREFIX_BYTES || bytes.length < PREFIX_BYTES + bytes.readUInt32BE(1)) {
      call.refuse(notOne(route.name));
    } else call.begin(bytes.subarray(PREFIX_BYTES));
  };
  const arrivalMs = Math.min(timeoutMs, deadlineMs === 0 ? MAX_TIMER_MS : deadlineMs, MAX_TIMER_MS);
  const timer = setTimeout(() => refuse(arrivalMs === timeoutMs ? timeUp() : late()), arrivalMs);
  stream.on("data", take);
  stream.on("end", whole);
  stream.on("close", () => {
    letGo();
    call.closed();
  });
  // A reset is followed by "close"; without a listener it would end the process.
  stream.on("error", () => {});
}

/** A call from the moment its headers are here. */
class UnaryCall {
  readonly stream: ServerHttp2Stream;
  /** After how many milliseconds its caller gives up; Infinity: not said. */
  readonly timeoutMs: number;
  readonly #route: Route;
  readonly #headers: IncomingHttpHeaders;
  readonly #deadlineAt: number | undefined;
  readonly #calls: OpenCalls;
  #running: RunningCall | undefined;

  constructor(
    route: Route,
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    timeoutMs: number,
    calls: OpenCalls,
  ) {
    this.#route = route;
    this.stream = stream;
    this.#headers = headers;
    this.timeoutMs = timeoutMs;
    this.#deadlineAt = timeoutMs === Number.POSITIVE_INFINITY ? undefined : Date.now() + timeoutMs;
    this.#calls = calls;
  }

  /** Answers the request: by the shortcut where there is one and it can, else by the pipeline. */
  begin(request: Buffer): void {
    const reply = this.#route.shortcut?.({ headers: this.#headers, deadlineAt: this.#deadlineAt, request });
    if (reply === undefined) this.#start(request);
    else this.#send(reply, undefined, undefined);
  }

  /** Ends the call with an error before anybody has looked at the request. */
  refuse(error: ServiceError): void {
    if (this.#isOver()) return;
    const { code, details, metadata } = toGrpcStatus(error);
    this.stream.respond({ ...responseHeaders, ...toTrailers(code, details, metadata) }, withoutBody);
  }

  /** The stream is gone: answered, or left by its caller. */
  closed(): void {
    if (this.#running !== undefined) this.#calls.callerLeft(this.#running);
  }

  #start(request: Buffer): void {
    const route = this.#route;
    const { stream } = this;
    const incoming = this.#headers;
    let headers: Headers | undefined;
    let reply: Uint8Array | undefined;
    const running = route.start({
      transport: "grpc",
      get headers() {
        headers ??= toHeaders(incoming);
        return headers;
      },
      get peer() {
        return peerOf(stream);
      },
      deadlineAt: this.#deadlineAt,
      receive: () => decodeRequest(route, request),
      send(message) {
        reply = toBinary(route.method.output, message);
      },
      sendEncoded(bytes) {
        reply = bytes;
      },
    });
    this.#running = running;
    this.#calls.add(running);
    const { call, done } = running;
    done.then(
      // A unary call that has not failed was sent its answer.
      () => this.#send(reply as Uint8Array, call.sentHeaders, call.sentTrailers),
      (error: ServiceError) => this.#fail(error, call.sentHeaders, call.sentTrailers),
    );
  }

  #send(reply: Uint8Array, headers: Headers | undefined, trailers: Headers | undefined): void {
    if (this.#isOver()) return;
    const { stream } = this;
    const message = Buffer.allocUnsafe(PREFIX_BYTES + reply.length);
    message[0] = 0;
    message.writeUInt32BE(reply.length, 1);
    message.set(reply, PREFIX_BYTES);
    stream.respond(headers === undefined ? responseHeaders : withMetadata(responseHeaders, headers), withTrailers);
    stream.on("wantTrailers", () =>
      stream.sendTrailers(trailers === undefined ? okTrailers : withMetadata(okTrailers, trailers)),
    );
    stream.end(message);
  }

  #fail(error: ServiceError, headers: Headers | undefined, trailers: Headers | undefined): void {
    if (this.#isOver()) return;
    const { stream } = this;
    const { code, details, metadata } = toGrpcStatus(error, trailers);
    const status = toTrailers(code, details, metadata);
    if (headers === undefined) {
      stream.respond({ ...responseHeaders, ...status }, withoutBody);
      return;
    }
    stream.respond(withMetadata(responseHeaders, headers), withTrailers);
    stream.on("wantTrailers", () => stream.sendTrailers(status));
    stream.end();
  }

  #isOver(): boolean {
    return this.stream.destroyed || this.stream.closed || this.stream.headersSent;
  }
}

function withMetadata(fixed: OutgoingHttpHeaders, more: Headers): OutgoingHttpHeaders {
  return { ...fixed, ...toMetadata(more).toHttp2Headers() };
}

function toTrailers(code: grpc.status, details: string, metadata: grpc.Metadata): OutgoingHttpHeaders {
  return { "grpc-status": code, "grpc-message": encodeURI(details.toWellFormed()), ...metadata.toHttp2Headers() };
}

function toHeaders(incoming: IncomingHttpHeaders): Headers {
  const metadata = grpc.Metadata.fromHttp2Headers(incoming);
  for (const name of transportHeaders) metadata.remove(name);
  return fromMetadata(metadata);
}

function peerOf({ session }: ServerHttp2Stream): string {
  const { remoteAddress, remotePort } = session?.socket ?? {};
  if (remoteAddress === undefined) return "unknown";
  return remotePort === undefined ? remoteAddress : `${remoteAddress}:${remotePort}`;
}
