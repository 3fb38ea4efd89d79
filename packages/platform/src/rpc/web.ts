import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { createContextValues } from "@connectrpc/connect";
import {
  type UniversalHandlerFn,
  uResponseMethodNotAllowed,
  uResponseVersionNotSupported,
} from "@connectrpc/connect/protocol";
import { errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import { platformError } from "../errors.ts";
import type { Logger } from "../logging.ts";
import { clip, jsonOptions } from "./codec.ts";
import type { ServiceBinding } from "./handlers.ts";
import { createHttpPort } from "./http-port.ts";
import type { Pipeline, Route } from "./pipeline.ts";
import { createOpenCalls, hostPort, LAST_WORDS_MS, type OpenCalls, type RpcServer } from "./server.ts";
import { bodyOf } from "./web-body.ts";
import { peerKey, toConnectError } from "./web-call.ts";
import { serveEnveloped } from "./web-stream.ts";
import { serveConnectUnary } from "./web-unary.ts";

/** What {@link createWebServer} needs. */
export interface WebServerOptions {
  bindings: readonly ServiceBinding[];
  pipeline: Pipeline;
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** Plain HTTP beside the RPCs, by method and path: `GET /health`. */
  routes?: Readonly<Record<string, RequestListener>>;
  logger: Logger;
}

/**
 * Serves bindings over cleartext HTTP/1.1 and HTTP/2 in the protocols of
 * browsers and scripts: Connect (JSON and binary, plain curl works) and
 * gRPC-Web. Bidi streams need HTTP/2 and are answered 505 without it. No CORS
 * headers: browsers of other origins are kept out.
 */
export function createWebServer({ bindings, pipeline, host, port, routes = {}, logger }: WebServerOptions): RpcServer {
  const calls = createOpenCalls();
  const plain = new Map(Object.entries(routes));
  const handlers = new Map(
    bindings
      .flatMap((binding) => pipeline.routes(binding))
      .map((route): [string, UniversalHandlerFn] => [`/${route.name}`, serve(route, calls)]),
  );
  const web = createHttpPort((request, response) => {
    const [path = ""] = (request.url ?? "").split("?");
    const listener = plain.get(`${request.method} ${path}`);
    const handler = handlers.get(path);
    if (listener !== undefined) listener(request, response);
    else if (handler !== undefined) void answer(handler, request, response, logger);
    else answerUnknown(path, response);
  });

  return {
    async start() {
      return { port: await web.listen(host, port) };
    },
    async stop(graceMs) {
      const closed = web.drain();
      calls.endStreams();
      const grace = setTimeout(() => {
        logger.warn({ calls: calls.endAll(), graceMs }, "web server: calls outlived the grace and were cut");
      }, graceMs);
      const force = setTimeout(() => web.closeAll(), graceMs + LAST_WORDS_MS);
      await closed;
      clearTimeout(grace);
      clearTimeout(force);
    },
  };
}

/** One handler for all protocols of a method; the content type says which one a request speaks. */
function serve(route: Route, calls: OpenCalls): UniversalHandlerFn {
  const enveloped = serveEnveloped(route, calls);
  const connect = route.method.methodKind === "unary" ? serveConnectUnary(route, calls) : enveloped.connect;
  return async (request) => {
    if (request.method !== "POST") return uResponseMethodNotAllowed;
    if (route.method.methodKind === "bidi_streaming" && !request.httpVersion.startsWith("2")) {
      return { ...uResponseVersionNotSupported, header: new Headers({ connection: "close" }) };
    }
    const { grpcWeb } = enveloped;
    return grpcWeb.supportedContentType(request.header.get("content-type") ?? "") ? grpcWeb(request) : connect(request);
  };
}

async function answer(
  handler: UniversalHandlerFn,
  request: IncomingMessage,
  response: ServerResponse,
  logger: Logger,
): Promise<void> {
  const { remoteAddress = "unknown", remotePort = 0 } = request.socket;
  const values = createContextValues().set(peerKey, hostPort(remoteAddress, remotePort));
  try {
    const universal = universalRequestFromNodeRequest(request, response, null, values);
    await universalResponseToNodeResponse(await handler({ ...universal, body: bodyOf(request, response) }), response);
  } catch (error) {
    // Either the request has no usable address, or the connection broke while we answered.
    logger.debug({ err: error, url: request.url }, "web server: a request could not be answered");
    if (response.headersSent) response.destroy();
    else response.writeHead(400).end();
  }
}

function answerUnknown(path: string, response: ServerResponse): void {
  const error = toConnectError(platformError("METHOD_UNKNOWN", `there is no method ${clip(path)}`));
  response.writeHead(404, { "content-type": "application/json" }).end(errorToJsonBytes(error, jsonOptions));
}
