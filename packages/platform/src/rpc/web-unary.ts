import { type Message, toBinary, toJsonString } from "@bufbuild/protobuf";
import { createContextValues } from "@connectrpc/connect";
import {
  createAsyncIterable,
  readAllBytes,
  type UniversalHandlerFn,
  type UniversalServerRequest,
  uResponseUnsupportedMediaType,
} from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  contentTypeUnaryJson,
  contentTypeUnaryProto,
  errorToJsonBytes,
  headerContentType,
  headerTimeout,
  headerUnaryContentLength,
  headerUnaryEncoding,
  parseContentType,
  parseTimeout,
  trailerMux,
} from "@connectrpc/connect/protocol-connect";
import { platformError, type ServiceError } from "../errors.ts";
import { decodeBinary, decodeJson, jsonOptions } from "./codec.ts";
import type { Route } from "./pipeline.ts";
import type { OpenCalls } from "./server.ts";
import { fromParser, MAX_TIMEOUT_MS, peerKey, toConnectError } from "./web-call.ts";

/** How a unary message is written in the Connect protocol: the HTTP body is the message. */
interface Format {
  readonly contentType: string;
  decode(route: Route, bytes: Uint8Array): Message;
  encode(route: Route, message: Message): Uint8Array;
}

const binaryFormat: Format = {
  contentType: contentTypeUnaryProto,
  decode: ({ method }, bytes) => decodeBinary(method.input, bytes),
  encode: ({ method }, message) => toBinary(method.output, message),
};

const jsonFormat: Format = {
  contentType: contentTypeUnaryJson,
  decode: ({ method }, bytes) => decodeJson(method.input, bytes),
  encode: ({ method }, message) => new TextEncoder().encode(toJsonString(method.output, message, jsonOptions)),
};

/**
 * Serves unary calls of the Connect protocol, what plain curl speaks. Ours
 * instead of connect's own handler, because that one decodes, and answers
 * what it can't decode, before any of our code runs: without ErrorInfo,
 * without a look at the credential, seen by no metric. The parsing of headers
 * and the writing of errors are connect's.
 */
export function serveConnectUnary(route: Route, calls: OpenCalls): UniversalHandlerFn {
  return async (request) => {
    const type = parseContentType(request.header.get(headerContentType));
    if (type === undefined || type.stream) return uResponseUnsupportedMediaType;
    const format = type.binary ? binaryFormat : jsonFormat;
    const timeout = parseTimeout(request.header.get(headerTimeout), MAX_TIMEOUT_MS);
    let body: Uint8Array = new Uint8Array();
    const running = route.start({
      transport: "connect",
      headers: request.header,
      peer: (request.contextValues ?? createContextValues()).get(peerKey),
      deadlineAt: timeout.timeoutMs === undefined ? undefined : Date.now() + timeout.timeoutMs,
      async receive() {
        if (timeout.error !== undefined) throw fromParser(route, timeout.error);
        return format.decode(route, await readBody(route, request));
      },
      send(message) {
        body = format.encode(route, message);
      },
    });
    calls.add(running);
    request.signal.addEventListener("abort", () => calls.callerLeft(running), { once: true });

    const header = new Headers();
    let status = 200;
    try {
      await running.done;
      header.set(headerContentType, format.contentType);
    } catch (error) {
      const answer = toConnectError(error as ServiceError);
      status = codeToHttpStatus(answer.code);
      header.set(headerContentType, contentTypeUnaryJson);
      body = errorToJsonBytes(answer, jsonOptions);
      const { retryAfterMs } = error as ServiceError;
      // For programs that know HTTP and not our details: whole seconds (RFC 9110, section 10.2.3).
      if (retryAfterMs !== undefined) header.set("retry-after", String(Math.ceil(retryAfterMs / 1_000)));
    }
    running.call.sentHeaders?.forEach((value, name) => void header.append(name, value));
    header.set(headerUnaryContentLength, String(body.byteLength));
    return {
      status,
      header: trailerMux(header, running.call.sentTrailers ?? new Headers()),
      body: createAsyncIterable([body]),
    };
  };
}

async function readBody(route: Route, { header, body }: UniversalServerRequest): Promise<Uint8Array> {
  const encoding = header.get(headerUnaryEncoding) ?? "identity";
  if (encoding !== "identity") {
    throw platformError("MALFORMED_MESSAGE", `content-encoding must be identity; ${encoding} is not supported`);
  }
  try {
    const bytes = body as AsyncIterable<Uint8Array>;
    return await readAllBytes(bytes, route.maxRequestBytes, header.get(headerUnaryContentLength));
  } catch (error) {
    throw fromParser(route, error);
  }
}
