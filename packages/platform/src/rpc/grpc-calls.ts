import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import type { ServiceError } from "../errors.ts";
import type { Exchange } from "./call.ts";
import { decodeRequest } from "./codec.ts";
import { Answer } from "./grpc-answer.ts";
import { type Arrivals, compressed, MAX_METADATA_BYTES, noTimeout, tooMuchMetadata } from "./grpc-guard.ts";
import { createReceiver, receiveAll } from "./grpc-requests.ts";
import { fromMetadata } from "./metadata.ts";
import type { Route, RunningCall } from "./pipeline.ts";
import type { OpenCalls } from "./server.ts";

const timeoutPattern = /^([0-9]{1,8})([HMSmun])$/;
const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** What speaks for the transport only, and is no metadata of the call. */
const transportHeaders: ReadonlySet<string> = new Set([
  "grpc-timeout",
  "grpc-encoding",
  "grpc-accept-encoding",
  "accept-encoding",
  "te",
  "content-type",
]);

/** Takes a call, or says false. What it is given is what node:http2 tells of a stream. */
export type TakeCall = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  flags: number,
  rawHeaders: readonly string[],
) => boolean;

const ignore = (): void => {};

/**
 * Serves calls of all kinds straight on node:http2, which is half of what a unary one costs in grpc-js, and a tenth of what
 * a message of a stream does: there each passes a dozen of objects and as many promises. Before any handler or credential
 * is looked at, calls are refused
 *
 * - with more metadata, or a larger message, than their method takes;
 * - that are compressed: a few bytes of them can become any number;
 * - whose one request does not arrive in time;
 * - beyond the memory that all requests that have not arrived whole may hold together.
 *
 * What is no call of a method that it knows is not taken.
 */
export function serveCalls(routes: readonly Route[], calls: OpenCalls, arrivals: Arrivals): TakeCall {
  const begins = new Map<string | undefined, (call: GrpcCall) => void>(
    routes.map((route) => [`/${route.name}`, beginner(route, calls, arrivals)]),
  );
  return (stream, headers, _flags, rawHeaders) => {
    const begin = begins.get(headers[":path"]);
    if (begin === undefined || headers["content-type"]?.startsWith("application/grpc") !== true) return false;
    // A reset is followed by "close"; without a listener it would end the process.
    stream.on("error", ignore);
    const timeoutMs = parseTimeout(headers["grpc-timeout"]);
    const call = new GrpcCall(stream, headers, timeoutMs);
    const objection = objectionTo(headers, rawHeaders, timeoutMs);
    if (objection === undefined) begin(call);
    else {
      call.answer.fail(objection);
      stream.resume();
    }
    return true;
  };
}

/** What is wrong with a call before its message. */
function objectionTo(
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
  timeoutMs: number,
): ServiceError | undefined {
  if (Number.isNaN(timeoutMs)) return noTimeout();
  const encoding = headers["grpc-encoding"];
  if (encoding !== undefined && encoding !== "identity") return compressed();
  let all = 0;
  for (const text of rawHeaders) all += text.length;
  if (all <= MAX_METADATA_BYTES) return undefined;
  const bytes = metadataBytes(rawHeaders);
  return bytes > MAX_METADATA_BYTES ? tooMuchMetadata(bytes) : undefined;
}

/** How many bytes of names and values are metadata of the call. */
function metadataBytes(rawHeaders: readonly string[]): number {
  let bytes = 0;
  for (const [index, text] of rawHeaders.entries()) {
    const name = rawHeaders[index - (index % 2)] ?? "";
    if (!name.startsWith(":") && !transportHeaders.has(name)) bytes += text.length;
  }
  return bytes;
}

/** Milliseconds; Infinity: not said, NaN: said wrongly. */
function parseTimeout(timeout: string | string[] | undefined): number {
  if (timeout === undefined) return Number.POSITIVE_INFINITY;
  const [, digits, unit = ""] = timeoutPattern.exec(String(timeout)) ?? [];
  return digits === undefined ? Number.NaN : Math.trunc(Number(digits) * (unitMs[unit] ?? 0));
}

/** What begins a call of a method, by what it takes and gives: one message or many. */
function beginner(route: Route, calls: OpenCalls, arrivals: Arrivals): (call: GrpcCall) => void {
  const { methodKind } = route.method;
  const start = methodKind === "unary" || methodKind === "client_streaming" ? answerOne : answerMany;
  if (methodKind === "client_streaming" || methodKind === "bidi_streaming") {
    return (call) => start(route, calls, call, () => receiveAll(call.stream, route, arrivals));
  }
  return createReceiver<GrpcCall>(route, arrivals, {
    begin(call, request) {
      const { headers, deadlineAt } = call;
      const reply = route.shortcut?.({ headers, deadlineAt, request });
      if (reply !== undefined) call.answer.end(reply);
      else start(route, calls, call, () => decodeRequest(route, request));
    },
    refuse: (call, error) => call.answer.fail(error),
  });
}

function answerOne(route: Route, calls: OpenCalls, grpcCall: GrpcCall, receive: Exchange["receive"]): void {
  let reply: Uint8Array | undefined;
  const { call, done } = grpcCall.start(route, calls, receive, (bytes) => {
    reply = bytes;
  });
  done.then(
    () => grpcCall.end(() => grpcCall.answer.end(reply, call)),
    (error: ServiceError) => grpcCall.end(() => grpcCall.answer.fail(error, call)),
  );
}

function answerMany(route: Route, calls: OpenCalls, grpcCall: GrpcCall, receive: Exchange["receive"]): void {
  const { answer } = grpcCall;
  const { call, done } = grpcCall.start(route, calls, receive, (bytes) => answer.put(bytes, call));
  done.then(
    () => grpcCall.end(() => answer.end(undefined, call)),
    (error: ServiceError) => grpcCall.end(() => answer.fail(error, call)),
  );
}

/** A call from the moment its headers are here. */
class GrpcCall {
  readonly stream: ServerHttp2Stream;
  readonly headers: IncomingHttpHeaders;
  /** After how many milliseconds its caller gives up; Infinity: not said. */
  readonly timeoutMs: number;
  readonly deadlineAt: number | undefined;
  #answer: Answer | undefined;

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, timeoutMs: number) {
    this.stream = stream;
    this.headers = headers;
    this.timeoutMs = timeoutMs;
    this.deadlineAt = Number.isFinite(timeoutMs) ? Date.now() + timeoutMs : undefined;
  }

  get answer(): Answer {
    this.#answer ??= new Answer(this.stream);
    return this.#answer;
  }

  /** Starts the pipeline and tells it when the caller leaves. */
  start(
    route: Route,
    calls: OpenCalls,
    receive: Exchange["receive"],
    send: (bytes: Uint8Array) => void | Promise<void>,
  ): RunningCall {
    const { stream, headers: incoming, deadlineAt } = this;
    let headers: Headers | undefined;
    const running = route.start({
      transport: "grpc",
      get headers() {
        headers ??= toHeaders(incoming);
        return headers;
      },
      get peer() {
        return peerOf(stream);
      },
      deadlineAt,
      receive,
      send: (message) => send(toBinary(route.method.output, message)),
      sendEncoded: send,
    });
    calls.add(running);
    stream.on("close", () => calls.callerLeft(running));
    return running;
  }

  /** Answers, and leaves unread what the caller still sends. */
  end(answer: () => void): void {
    answer();
    if (this.stream.readableEnded) return;
    // Not kept for a reader that does not come, but read for the connection's other calls.
    this.stream.removeAllListeners("readable").resume();
  }
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
