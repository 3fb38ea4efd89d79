import type { DescMethodBiDiStreaming, Message } from "@bufbuild/protobuf";
import { ConnectError, type HandlerContext } from "@connectrpc/connect";
import {
  encodeEnvelope,
  transformSplitEnvelope,
  type UniversalHandler,
  type UniversalHandlerFn,
} from "@connectrpc/connect/protocol";
import { createHandlerFactory as createConnectHandler } from "@connectrpc/connect/protocol-connect";
import { createHandlerFactory as createGrpcWebHandler } from "@connectrpc/connect/protocol-grpc-web";
import { platformError, ServiceError } from "../errors.ts";
import { jsonOptions, refuseCrowded } from "./codec.ts";
import { createHandoff } from "./handoff.ts";
import type { Route } from "./pipeline.ts";
import type { OpenCalls } from "./server.ts";
import { fromParser, MAX_TIMEOUT_MS, peerKey, toConnectError } from "./web-call.ts";

/** The largest message of an answer, in bytes. */
const MAX_RESPONSE_BYTES = 1024 * 1024;

/** Connect's handlers for the protocols that put every message into an envelope. */
export interface EnvelopedHandlers {
  readonly grpcWeb: UniversalHandler;
  /** For streaming methods only: a unary call of the Connect protocol has no envelopes. */
  readonly connect: UniversalHandler;
}

/**
 * Serves gRPC-Web calls and streams of the Connect protocol. To connect every
 * method is a bidi stream, which on the wire all kinds are: so requests are
 * decoded when the pipeline asks for them, and what can't be decoded is
 * answered by the pipeline.
 */
export function serveEnveloped(route: Route, calls: OpenCalls): EnvelopedHandlers {
  const spec = {
    kind: "bidi_streaming" as const,
    method: route.method as DescMethodBiDiStreaming,
    impl: (requests: AsyncIterable<Message>, context: HandlerContext) => serve(route, calls, requests, context),
  };
  const options = {
    readMaxBytes: route.maxRequestBytes,
    writeMaxBytes: MAX_RESPONSE_BYTES,
    maxTimeoutMs: MAX_TIMEOUT_MS,
    jsonOptions,
  };
  return {
    grpcWeb: counting(route, createGrpcWebHandler(options)(spec)),
    connect: counting(route, createConnectHandler(options)(spec)),
  };
}

/** What an envelope says in its first byte when its message is as it is: neither compressed nor the last words of a stream. */
const PLAIN = 0;

/**
 * Has what is in a message counted before connect decodes it, as everywhere else. Messages in JSON are read by its own
 * parser, which is quick, and held to the rules behind it.
 */
function counting({ method, maxRequestBytes }: Route, handler: UniversalHandler): UniversalHandler {
  async function* counted(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const { flags, data } of transformSplitEnvelope(maxRequestBytes)(body)) {
      if (flags === PLAIN) refuseCrowded(method.input, data);
      yield encodeEnvelope(flags, data);
    }
  }
  const handle: UniversalHandlerFn = (request) => {
    const isBinary = !/\+json\b/i.test(request.header.get("content-type") ?? "");
    return handler(isBinary ? { ...request, body: counted(request.body as AsyncIterable<Uint8Array>) } : request);
  };
  return Object.assign(handle, handler);
}

async function* serve(
  route: Route,
  calls: OpenCalls,
  requests: AsyncIterable<Message>,
  context: HandlerContext,
): AsyncGenerator<Message> {
  const handoff = createHandoff<Message>();
  const timeoutMs = context.timeoutMs();
  const { methodKind } = route.method;
  const single = methodKind === "unary" || methodKind === "server_streaming";
  const running = route.start({
    transport: context.protocolName === "grpc-web" ? "grpc-web" : "connect",
    headers: context.requestHeader,
    peer: context.values.get(peerKey),
    deadlineAt: timeoutMs === undefined ? undefined : Date.now() + timeoutMs,
    receive: () => (single ? receiveOne(route, requests) : receiveAll(route, requests)),
    send: (message) => handoff.put(message),
  });
  calls.add(running);
  const left = () => calls.callerLeft(running);
  context.signal.addEventListener("abort", left, { once: true });
  running.done.then(handoff.end, handoff.fail);
  const { call } = running;
  // Connect sends the headers with the first message, or with the error before it; set again they do not change.
  const setHeaders = () => call.sentHeaders?.forEach((value, name) => void context.responseHeader.set(name, value));
  try {
    for await (const message of handoff) {
      setHeaders();
      yield message;
    }
  } catch (error) {
    setHeaders();
    throw toConnectError(error as ServiceError);
  } finally {
    call.sentTrailers?.forEach((value, name) => void context.responseTrailer.set(name, value));
    left();
  }
}

async function* receiveAll(route: Route, requests: AsyncIterable<Message>): AsyncGenerator<Message> {
  try {
    yield* requests;
  } catch (error) {
    const { cause } = ConnectError.from(error);
    throw cause instanceof ServiceError ? cause : fromParser(route, error);
  }
}

async function receiveOne(route: Route, requests: AsyncIterable<Message>): Promise<Message> {
  let request: Message | undefined;
  for await (const message of receiveAll(route, requests)) {
    if (request !== undefined) throw platformError("MALFORMED_MESSAGE", `${route.name} takes one message, not several`);
    request = message;
  }
  if (request === undefined) throw platformError("MALFORMED_MESSAGE", `${route.name} takes one message, not none`);
  return request;
}
