import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { fromStatus, platformError, type ServiceError, toStatus } from "../errors.ts";
import type { Exchange } from "./call.ts";
import { decodeRequest } from "./codec.ts";
import type { ServiceBinding } from "./handlers.ts";
import { createHandoff } from "./handoff.ts";
import { cancelled, type HeadersLike, outgoing } from "./outgoing.ts";
import type { Pipeline, Route, RunningCall } from "./pipeline.ts";

/** What {@link createLocalTransport} needs. */
export interface LocalTransportOptions {
  bindings: readonly ServiceBinding[];
  pipeline: Pipeline;
  /** Sent with every call, unless the call has the same header itself: the credential, for one. */
  headers?: HeadersLike;
}

/**
 * A client's transport to services in the same process: the same pipeline,
 * the same errors, no port. Messages cross as bytes, as they would between
 * processes, so neither side can change what the other holds.
 */
export function createLocalTransport({ bindings, pipeline, headers }: LocalTransportOptions): Transport {
  const routes = new Map<DescMethod, Route>();
  for (const binding of bindings) {
    for (const route of pipeline.routes(binding)) routes.set(route.method, route);
  }
  const start = (method: DescMethod, options: StartOptions): RunningCall => {
    const route = routes.get(method);
    if (route === undefined) throw platformError("METHOD_UNKNOWN", `there is no method ${method.toString()}`);
    return startCall(route, outgoing(headers, options.header), options);
  };

  return {
    async unary(method, signal, timeoutMs, header, input) {
      const request = encode(method.input, input);
      let reply: Uint8Array = new Uint8Array();
      const { call, done } = start(method, {
        signal,
        timeoutMs,
        header,
        receive: (route) => decodeRequest(route, request),
        send: (message) => {
          reply = toBinary(method.output as DescMessage, message);
        },
        sendEncoded: (bytes) => {
          reply = bytes;
        },
      });
      await done.catch((error: ServiceError) => {
        throw received(error, signal);
      });
      const message = fromBinary(method.output, reply);
      const { responseHeaders, responseTrailers } = call;
      return {
        stream: false,
        service: method.parent,
        method,
        header: responseHeaders,
        message,
        trailer: responseTrailers,
      };
    },
    async stream(method, signal, timeoutMs, header, input) {
      const replies = createHandoff<Uint8Array>();
      const begun = Promise.withResolvers<void>();
      const single = method.methodKind === "server_streaming";
      const running = start(method, {
        signal,
        timeoutMs,
        header,
        receive: (route) => (single ? receiveOne(route, input) : receiveAll(route, input)),
        send(message) {
          begun.resolve();
          return replies.put(toBinary(method.output as DescMessage, message));
        },
        sendEncoded(bytes) {
          begun.resolve();
          return replies.put(bytes);
        },
      });
      running.done.then(replies.end, (error: ServiceError) => replies.fail(received(error, signal)));
      running.done.then(begun.resolve, begun.resolve);
      // The headers are final once the first message is there.
      await begun.promise;
      const { responseHeaders, responseTrailers } = running.call;
      const message = messages(method.output, replies, running);
      return {
        stream: true,
        service: method.parent,
        method,
        header: responseHeaders,
        message,
        trailer: responseTrailers,
      };
    },
  };
}

interface StartOptions {
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number | undefined;
  readonly header: HeadersLike;
  receive(route: Route): ReturnType<Exchange["receive"]>;
  readonly send: Exchange["send"];
  readonly sendEncoded: NonNullable<Exchange["sendEncoded"]>;
}

function startCall(route: Route, headers: Headers, options: StartOptions): RunningCall {
  const { signal, timeoutMs, receive, send, sendEncoded } = options;
  if (signal?.aborted) throw cancelled(signal);
  const running = route.start({
    transport: "local",
    headers,
    peer: "local",
    deadlineAt: timeoutMs === undefined ? undefined : Date.now() + timeoutMs,
    receive: () => receive(route),
    send,
    sendEncoded,
  });
  if (signal !== undefined) {
    const cancel = () => running.call.abort(cancelled(signal));
    const over = () => signal.removeEventListener("abort", cancel);
    signal.addEventListener("abort", cancel, { once: true });
    running.done.then(over, over);
  }
  return running;
}

async function* messages<O extends DescMessage>(
  schema: O,
  replies: AsyncIterable<Uint8Array>,
  { call }: RunningCall,
): AsyncGenerator<MessageShape<O>> {
  try {
    for await (const bytes of replies) yield fromBinary(schema, bytes);
  } finally {
    call.abort(platformError("CANCELLED", "the caller stopped reading"));
  }
}

async function receiveOne<I extends DescMessage>(
  route: Route,
  input: AsyncIterable<MessageInitShape<I>>,
): Promise<Message> {
  for await (const request of receiveAll(route, input)) return request;
  throw platformError("MALFORMED_MESSAGE", `${route.name} takes one message, not none`);
}

async function* receiveAll(route: Route, input: AsyncIterable<MessageInitShape<DescMessage>>): AsyncGenerator<Message> {
  for await (const message of input) yield decodeRequest(route, encode(route.method.input, message));
}

function encode<M extends DescMessage>(schema: M, init: MessageInitShape<M>): Uint8Array {
  return toBinary(schema, create(schema, init));
}

/** The error as it would arrive from another process: without the cause, which is nobody else's business. */
function received(error: ServiceError, signal: AbortSignal | undefined): ServiceError {
  return signal?.aborted ? cancelled(signal) : fromStatus(toStatus(error));
}
