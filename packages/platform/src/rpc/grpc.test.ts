import { once } from "node:events";
import { type ClientHttp2Stream, connect, constants, type IncomingHttpHeaders } from "node:http2";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import * as grpc from "@grpc/grpc-js";
import { afterEach, describe, expect, test } from "@jest/globals";
import { platformError } from "../errors.ts";
import { createLogger } from "../logging.ts";
import {
  type EchoHandlers,
  type EchoServer,
  type EchoServerOptions,
  echoBinding,
  echoKeys,
  echoPipeline,
  startEchoServer,
} from "../testing/echo-server.ts";
import { EchoRequestSchema, EchoService } from "../testing/echo-service.ts";
import { until } from "../testing/until.ts";
import type { Call } from "./call.ts";
import { type Channel, createChannel } from "./client.ts";
import { createGrpcServer } from "./grpc.ts";
import { fromGrpcStatus } from "./metadata.ts";

let server: EchoServer | undefined;
let channel: Channel | undefined;
let raw: grpc.Client | undefined;

afterEach(async () => {
  channel?.close();
  raw?.close();
  await server?.stop();
});

/** A typed client and one that sends what it is told, of a server of their own. */
async function start(options: EchoServerOptions = {}) {
  server = await startEchoServer(options);
  channel = createChannel({ address: server.grpcAddress, credential: echoKeys.allowed });
  raw = new grpc.Client(server.grpcAddress, grpc.credentials.createInsecure(), { "grpc.enable_retries": 0 });
  return { server, client: createClient(EchoService, channel), raw };
}

const asIs = (bytes: Buffer) => bytes;
const path = (method: string) => `/testing.v1.EchoService/${method}`;

function keyed(more: Record<string, string> = {}): grpc.Metadata {
  return grpc.Metadata.fromHttp2Headers({ authorization: `Bearer ${echoKeys.allowed}`, ...more });
}

function encoded(request: MessageInitShape<typeof EchoRequestSchema>): Buffer {
  return Buffer.from(toBinary(EchoRequestSchema, create(EchoRequestSchema, request)));
}

/** A short message in its frame. */
function framed(request: MessageInitShape<typeof EchoRequestSchema>): Buffer {
  const message = encoded(request);
  return Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
}

/** The status of a unary call with the given bytes. */
function statusOf(client: grpc.Client, method: string, bytes: Buffer, metadata = keyed()): Promise<grpc.StatusObject> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(path(method), asIs, asIs, bytes, metadata, () => {}).on("status", resolve);
  });
}

function headersOf(method: string) {
  return {
    ":method": "POST",
    ":path": path(method),
    "content-type": "application/grpc",
    te: "trailers",
    authorization: `Bearer ${echoKeys.allowed}`,
  };
}

/** A call on a connection of its own, for a test to write its bytes. */
function open(address: string, method: string, headers: Record<string, string> = {}) {
  const session = connect(`http://${address}`);
  const stream = session.request({ ...headersOf(method), ...headers });
  stream.on("error", () => {});
  return { session, stream };
}

/** The error that a call without an answer ends with. */
async function errorOn(stream: ClientHttp2Stream) {
  const [headers] = (await once(stream, "response")) as [IncomingHttpHeaders];
  return fromGrpcStatus({
    code: Number(headers["grpc-status"]),
    details: String(headers["grpc-message"]),
    metadata: grpc.Metadata.fromHttp2Headers(headers),
  });
}

/** An input of one message that stays open. */
async function* endless() {
  yield { text: "x" };
  await new Promise(() => {});
}

function stubborn() {
  const gate = Promise.withResolvers<void>();
  const calls: Call[] = [];
  const handler: EchoHandlers["echo"] = async (_ctx, call) => {
    calls.push(call);
    await gate.promise;
    return { text: "done" };
  };
  return { gate, calls, handler };
}

describe("what is refused before a handler runs", () => {
  test("bytes that are no message", async () => {
    const { raw } = await start();
    const error = fromGrpcStatus(await statusOf(raw, "Echo", Buffer.from([0xff, 0xff])));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "MALFORMED_MESSAGE" });
    expect(error.message).toContain("testing.v1.EchoRequest");
  });

  test("text that is not UTF-8", async () => {
    const { raw } = await start();
    const error = fromGrpcStatus(await statusOf(raw, "Echo", Buffer.from([0x0a, 0x02, 0xc3, 0x28])));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "MALFORMED_MESSAGE" });
  });

  test("a message of more bytes than its method takes", async () => {
    const { raw } = await start();
    const request = encoded({ text: "x".repeat(70_000) });
    const error = fromGrpcStatus(await statusOf(raw, "Echo", request));
    expect(error).toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "MESSAGE_TOO_LARGE",
      metadata: { max_bytes: "65536" },
    });
    expect((await statusOf(raw, "Batch", request)).code).toBe(grpc.status.OK);
  });

  test("a message too large, as soon as it says how long it is", async () => {
    const { server } = await start();
    const { session, stream } = open(server.grpcAddress, "Echo");
    stream.write(Buffer.from([0, 0, 1, 0, 1]));
    expect(await errorOn(stream)).toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "MESSAGE_TOO_LARGE",
      metadata: { max_bytes: "65536" },
    });
    session.destroy();
  });

  test.each([
    ["no message", Buffer.alloc(0), {}, "neither none nor several"],
    ["two messages", Buffer.from([0, 0, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0]), {}, "neither none nor several"],
    ["a timeout that is none", Buffer.from([0, 0, 0, 0, 0]), { "grpc-timeout": "soon" }, "grpc-timeout"],
    ["a compressed message", Buffer.from([1, 0, 0, 0, 0]), { "grpc-encoding": "gzip" }, "grpc-encoding"],
  ])("%s", async (_what, bytes, headers, message) => {
    const { server } = await start();
    const { session, stream } = open(server.grpcAddress, "Echo", headers);
    stream.end(bytes);
    const error = await errorOn(stream);
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "MALFORMED_MESSAGE" });
    expect(error.message).toContain(message);
    session.destroy();
  });

  test("metadata above 8 KiB", async () => {
    const { raw } = await start();
    const status = await statusOf(raw, "Echo", encoded({ text: "x" }), keyed({ "x-long": "y".repeat(9_000) }));
    expect(fromGrpcStatus(status)).toMatchObject({ code: "INVALID_ARGUMENT", reason: "MESSAGE_TOO_LARGE" });
  });

  test("a method that nobody serves", async () => {
    const { raw } = await start();
    const error = fromGrpcStatus(await statusOf(raw, "Missing", encoded({ text: "x" })));
    expect(error).toMatchObject({ code: "UNIMPLEMENTED", reason: "METHOD_UNKNOWN" });
  });

  test("a request that never arrives, although its caller set no deadline", async () => {
    const { raw } = await start();
    const half = raw.makeClientStreamRequest(path("Hurry"), asIs, asIs, keyed(), () => {});
    const status = await new Promise<grpc.StatusObject>((resolve) => half.on("status", resolve));
    expect(fromGrpcStatus(status)).toMatchObject({
      code: "DEADLINE_EXCEEDED",
      message: expect.stringContaining("arrive"),
    });
  });
});

test("a fault of the handler is masked on the wire", async () => {
  const { raw } = await start({ handlers: { echo: () => Promise.reject(new Error("password of the database")) } });
  const status = await statusOf(raw, "Echo", encoded({ text: "x" }));
  expect(status).toMatchObject({ code: grpc.status.INTERNAL, details: "internal error" });
  expect(JSON.stringify(status.metadata.toJSON())).not.toContain("password");
});

test("a call whose deadline passes is answered, and its handler's signal aborted with that", async () => {
  const { gate, calls, handler } = stubborn();
  const { server } = await start({ handlers: { echo: handler } });
  // A client of its own would reset the call by its own clock, at times before the server's has come so far.
  const { session, stream } = open(server.grpcAddress, "Echo", { "grpc-timeout": "1S" });
  stream.end(framed({ text: "x" }));
  expect(await errorOn(stream)).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  expect(calls[0]?.signal.reason).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  gate.resolve();
  session.destroy();
});

describe("a caller that leaves", () => {
  test("aborts the handler's signal", async () => {
    const { gate, calls, handler } = stubborn();
    const { client } = await start({ handlers: { echo: handler } });
    const controller = new AbortController();
    const call = client.echo({ text: "x" }, { signal: controller.signal });
    await until("the handler runs", () => calls.length === 1);
    controller.abort();
    await expect(call).rejects.toMatchObject({ code: "CANCELLED" });
    await until("the handler hears of it", () => calls[0]?.signal.aborted === true);
    expect(calls[0]?.signal.reason).toMatchObject({ code: "CANCELLED" });
    gate.resolve();
  });

  test("can't, by leaving quickly and often, run more handlers than there are slots", async () => {
    const { gate, calls, handler } = stubborn();
    const { client } = await start({ handlers: { write: handler }, maxConcurrent: 5 });
    for (let round = 0; round < 20; round++) {
      const controller = new AbortController();
      const burst = Array.from({ length: 20 }, () =>
        client.write({ text: "x" }, { signal: controller.signal }).catch(() => {}),
      );
      await until("the server has answered or begun some", () => calls.length === 5);
      controller.abort();
      await Promise.all(burst);
    }
    expect(calls.length).toBe(5);
    gate.resolve();
    await until("a slot is free again", () =>
      client.write({ text: "x" }).then(
        () => true,
        () => false,
      ),
    );
  });

  test("too often at once loses its connection", async () => {
    let begun = 0;
    const { server } = await start({
      handlers: {
        async echo() {
          begun += 1;
          return {};
        },
      },
    });
    const session = connect(`http://${server.grpcAddress}`, { settings: { enablePush: false } });
    session.on("error", () => {});
    const goaway = new Promise((resolve) => session.once("goaway", resolve));
    const message = framed({ text: "x" });
    for (let i = 0; i < 500 && !session.destroyed; i++) {
      const stream = session.request(headersOf("Echo"));
      stream.on("error", () => {});
      stream.write(message, () => stream.close(constants.NGHTTP2_CANCEL));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await goaway;
    expect(begun).toBeLessThan(500);
    session.destroy();
  });

  test("ends a stream's generator", async () => {
    const ended = Promise.withResolvers<void>();
    const { client } = await start({
      handlers: {
        async *expand() {
          try {
            for (;;) yield {};
          } finally {
            ended.resolve();
          }
        },
      },
    });
    const controller = new AbortController();
    const replies = client.expand({ text: "x" }, { signal: controller.signal })[Symbol.asyncIterator]();
    await replies.next();
    controller.abort();
    await ended.promise;
  });

  test("with its connection ends the input that a handler still waits for", async () => {
    const failed = Promise.withResolvers<unknown>();
    const { server } = await start({
      handlers: {
        async collect(_ctx, _call, requests) {
          try {
            for await (const _ of requests) session.destroy();
            failed.resolve("the input looked complete");
          } catch (error) {
            failed.resolve(error);
          }
          return {};
        },
      },
    });
    const { session, stream } = open(server.grpcAddress, "Collect");
    const message = encoded({ text: "x" });
    stream.write(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]));
    await expect(failed.promise).resolves.toMatchObject({ code: "CANCELLED" });
  });
});

test.each([
  ["small", 10_000, 100],
  ["large", 1_000_000, 22],
])("a reader that stops reading stops the handler of %s messages", async (_size, bytes, most) => {
  let made = 0;
  const { client } = await start({
    handlers: {
      async *expand() {
        for (;;) {
          made++;
          yield { text: "x".repeat(bytes) };
        }
      },
    },
  });
  const controller = new AbortController();
  const replies = client.expand({ text: "x" }, { signal: controller.signal })[Symbol.asyncIterator]();
  await replies.next();
  // Buffers on the way fill up (flow control windows, 16 messages in the client's stream object, 16 small ones in the
  // server's), then nothing moves any more.
  let before = 0;
  await until("the handler waits", async () => {
    const last = before;
    before = made;
    for (let i = 0; i < 5; i++) await client.echo({ text: "x" });
    return made === last;
  });
  expect(made).toBeLessThan(most);
  for (let i = 0; i < 50; i++) await replies.next();
  expect(made).toBeGreaterThan(50);
  controller.abort();
});

describe("stop", () => {
  test("lets unary calls finish, ends streams, takes no new calls", async () => {
    const { gate, calls, handler } = stubborn();
    const { server, client } = await start({ handlers: { write: handler } });
    const unary = client.write({ text: "x" });
    const replies = client.chat(endless())[Symbol.asyncIterator]();
    await replies.next();
    await until("the handler runs", () => calls.length === 1);

    let stopped = false;
    const stop = server.grpc.stop(10_000).then(() => {
      stopped = true;
    });
    await expect(replies.next()).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "SHUTTING_DOWN" });
    const late = createChannel({ address: server.grpcAddress, credential: echoKeys.allowed });
    const lateCall = createClient(EchoService, late).echo({ text: "x" }, { timeoutMs: 300 });
    await expect(lateCall).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    late.close();
    expect(calls).toHaveLength(1);
    expect(stopped).toBe(false);
    gate.resolve();
    await expect(unary).resolves.toMatchObject({ text: "done" });
    channel?.close();
    await stop;
  });

  test("cuts what outlives the grace", async () => {
    const { gate, calls, handler } = stubborn();
    const { server, client } = await start({ handlers: { write: handler } });
    const call = client.write({ text: "x" });
    await until("the handler runs", () => calls.length === 1);
    const stop = server.grpc.stop(50);
    await expect(call).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "SHUTTING_DOWN" });
    await stop;
    expect(calls[0]?.signal.reason).toMatchObject({ reason: "SHUTTING_DOWN" });
    gate.resolve();
  });
});

test("a port that is taken is named", async () => {
  const { server } = await start();
  const port = Number(server.grpcAddress.split(":")[1]);
  const logger = createLogger({ level: "silent", name: "test" });
  const place = { bindings: [echoBinding()], pipeline: echoPipeline(), host: "127.0.0.1", port, logger };
  await expect(createGrpcServer(place).start()).rejects.toMatchObject({
    code: "EADDRINUSE",
    message: `can't listen on 127.0.0.1:${port}: the port is in use`,
  });
});

test("headers that a handler set are sent with its error too, of unary calls and streams", async () => {
  const refuse = (call: Call): never => {
    call.responseHeaders.set("ratelimit-remaining", "0");
    throw platformError("RATE_LIMITED", "too many", { retryAfterMs: 1_000 });
  };
  const { raw: client } = await start({
    handlers: {
      echo: async (_ctx, call) => refuse(call),
      // biome-ignore lint/correctness/useYield: it fails before its first message.
      async *expand(_ctx, call) {
        refuse(call);
      },
    },
  });
  const request = encoded({ text: "x" });
  const unary = client.makeUnaryRequest(path("Echo"), asIs, asIs, request, keyed(), () => {});
  const stream = client.makeServerStreamRequest(path("Expand"), asIs, asIs, request, keyed());
  // Not by `once` of node:events, which rejects when the call fails.
  const outcomes = [unary, stream.on("error", () => {}).resume()].map((call) => ({
    headers: new Promise<grpc.Metadata>((resolve) => void call.on("metadata", resolve)),
    status: new Promise<grpc.StatusObject>((resolve) => void call.on("status", resolve)),
  }));
  for (const { headers, status } of outcomes) {
    expect((await headers).get("ratelimit-remaining")).toEqual(["0"]);
    expect(fromGrpcStatus(await status)).toMatchObject({ reason: "RATE_LIMITED", retryAfterMs: 1_000 });
  }
});
