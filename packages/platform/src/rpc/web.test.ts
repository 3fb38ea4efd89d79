import { once } from "node:events";
import { connect as connectHttp2, type IncomingHttpHeaders } from "node:http2";
import { connect } from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterEach, describe, expect, test } from "@jest/globals";
import { StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import { fromStatus, platformError } from "../errors.ts";
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
import { EchoRequestSchema, EchoResponseSchema, EchoService } from "../testing/echo-service.ts";
import { until } from "../testing/until.ts";
import type { Call } from "./call.ts";
import { tellAllowance } from "./rate-limit.ts";
import { createWebServer } from "./web.ts";

let server: EchoServer | undefined;

afterEach(() => server?.stop());

async function start(options: EchoServerOptions = {}): Promise<EchoServer> {
  server = await startEchoServer(options);
  return server;
}

const key = { authorization: `Bearer ${echoKeys.allowed}` };

/** A call as curl makes it. */
function post(path: string, body: RequestInit["body"], headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${server?.webUrl}/testing.v1.EchoService/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...key, ...headers },
    body: body ?? null,
  });
}

/** A call over HTTP/2 on a connection of its own, for a test to write its body. */
function openHttp2(webUrl: string, path: string) {
  const session = connectHttp2(webUrl);
  const stream = session.request({
    ":method": "POST",
    ":path": `/testing.v1.EchoService/${path}`,
    "content-type": "application/json",
    ...key,
  });
  stream.on("error", () => {});
  return { session, stream };
}

/** What people read of an error: the JSON and the readable form of its ErrorInfo and BadRequest. */
async function errorOf(response: Response) {
  const { code, message, details } = (await response.json()) as {
    code: string;
    message: string;
    details: { type: string; debug: Record<string, unknown> }[];
  };
  const [info, bad] = ["google.rpc.ErrorInfo", "google.rpc.BadRequest"].map(
    (type) => details.find((detail) => detail.type === type)?.debug,
  );
  return {
    status: response.status,
    code,
    message,
    reason: info?.reason,
    domain: info?.domain,
    violations: bad?.fieldViolations,
  };
}

describe("plain HTTP with JSON", () => {
  test.each(["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])(
    "answers %s with fields at their default too",
    async (type) => {
      await start();
      const response = await post("Echo", '{"text":"hi"}', { "content-type": type });
      expect(response.status).toBe(200);
      expect(await response.json()).toEqual({ text: "acme:hi", count: 0, flag: false });
    },
  );

  test("answers binary to binary", async () => {
    await start();
    const body = toBinary(EchoRequestSchema, create(EchoRequestSchema, { text: "hi", count: 3 }));
    const response = await post("Echo", body, { "content-type": "application/proto" });
    const reply = fromBinary(EchoResponseSchema, new Uint8Array(await response.arrayBuffer()));
    expect(reply).toMatchObject({ text: "acme:hi", count: 3 });
  });

  test.each([
    ["no key", "Echo", '{"text":"x"}', { authorization: "" }, 401, "unauthenticated", "CREDENTIAL_INVALID"],
    [
      "no key and no JSON",
      "Echo",
      "{",
      { authorization: "Bearer wrong" },
      401,
      "unauthenticated",
      "CREDENTIAL_INVALID",
    ],
    ["a method without a scope", "Forgotten", '{"text":"x"}', {}, 403, "permission_denied", "SCOPE_MISSING"],
    ["no JSON", "Echo", '{"text":', {}, 400, "invalid_argument", "MALFORMED_MESSAGE"],
    ["no UTF-8", "Echo", Buffer.from([0x22, 0xc3, 0x28, 0x22]), {}, 400, "invalid_argument", "MALFORMED_MESSAGE"],
    ["an unknown key", "Echo", '{"txet":"x"}', {}, 400, "invalid_argument", "MALFORMED_MESSAGE"],
    ["no body", "Echo", "", {}, 400, "invalid_argument", "MALFORMED_MESSAGE"],
    ["a field of another type", "Echo", '{"count":"many"}', {}, 400, "invalid_argument", "INVALID_FIELD"],
    ["an unknown enum name", "Echo", '{"text":"x","color":"COLOR_NONE"}', {}, 400, "invalid_argument", "INVALID_FIELD"],
    ["an unknown enum number", "Echo", '{"text":"x","color":7}', {}, 400, "invalid_argument", "INVALID_FIELD"],
    ["a broken rule", "Echo", "{}", {}, 400, "invalid_argument", "INVALID_FIELD"],
    ["too many bytes", "Echo", `{"text":"${"x".repeat(70_000)}"}`, {}, 400, "invalid_argument", "MESSAGE_TOO_LARGE"],
    ["a compressed body", "Echo", "{}", { "content-encoding": "gzip" }, 400, "invalid_argument", "MALFORMED_MESSAGE"],
    [
      "a timeout that is none",
      "Echo",
      "{}",
      { "connect-timeout-ms": "soon" },
      400,
      "invalid_argument",
      "MALFORMED_MESSAGE",
    ],
    [
      "a timeout too long",
      "Echo",
      "{}",
      { "connect-timeout-ms": "30001" },
      400,
      "invalid_argument",
      "MALFORMED_MESSAGE",
    ],
    [
      "a timeout too short",
      "Echo",
      '{"text":"x"}',
      { "connect-timeout-ms": "5" },
      504,
      "deadline_exceeded",
      "DEADLINE_EXCEEDED",
    ],
    ["a method that nobody serves", "Missing", "{}", {}, 404, "unimplemented", "METHOD_UNKNOWN"],
  ])("%s is refused with its reason", async (_what, path, body, headers, status, code, reason) => {
    await start();
    const error = await errorOf(await post(path, body, headers));
    expect(error).toMatchObject({ status, code, reason, domain: "licet.dev" });
  });

  test.each([
    ["more bytes than its method takes", "4000\r\n".concat("x".repeat(16_384), "\r\n").repeat(20), "MESSAGE_TOO_LARGE"],
    ["a byte in each of many chunks", "1\r\n1\r\n".repeat(20_000), "send fewer and larger ones"],
  ])("a body of unknown length with %s is answered and cut off", async (_what, chunks, answer) => {
    const { webUrl } = await start();
    const socket = connect(Number(new URL(webUrl).port), "127.0.0.1");
    socket.on("error", () => {});
    let text = "";
    socket.setEncoding("utf8").on("data", (some) => {
      text += some;
    });
    const closed = new Promise((resolve) => socket.once("close", resolve));
    const head = `POST /testing.v1.EchoService/Echo HTTP/1.1\r\nhost: x\r\nauthorization: ${key.authorization}\r\n`;
    socket.write(`${head}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n${chunks}`);
    await closed;
    expect(text).toMatch(/^HTTP\/1\.1 400 /);
    expect(text).toContain(answer);
  });

  test("over HTTP/2 too a body with more bytes is answered and cut off", async () => {
    const { webUrl } = await start();
    const { session, stream } = openHttp2(webUrl, "Echo");
    // It never ends it.
    stream.write("x".repeat(70_000));
    const closed = new Promise((resolve) => stream.once("close", resolve));
    let text = "";
    for await (const some of stream.setEncoding("utf8")) text += some;
    expect(text).toContain("MESSAGE_TOO_LARGE");
    await closed;
    session.destroy();
  });

  test("whoever never ends a body keeps a slot until the deadline and no longer", async () => {
    const { webUrl } = await start({ maxConcurrent: 1 });
    const { session, stream } = openHttp2(webUrl, "Hurry");
    stream.write('{"text":');
    const [headers] = (await once(stream, "response")) as [IncomingHttpHeaders];
    expect(headers[":status"]).toBe(504);
    await until("the slot is free again", async () => (await post("Anyone", '{"text":"x"}')).status === 200);
    session.destroy();
  });

  test("a refusal names the field", async () => {
    await start();
    const wrongType = await errorOf(await post("Echo", '{"text":"x","count":"many"}'));
    expect(wrongType).toMatchObject({ violations: [{ field: "count" }], message: expect.stringContaining("count") });
    const wrongEnum = await errorOf(await post("Echo", '{"text":"x","color":"COLOR_NONE"}'));
    expect(wrongEnum).toMatchObject({ violations: [{ field: "color" }] });
    const nested = await errorOf(await post("Echo", '{"text":"x","parts":[{"quantity":1},{"quantity":{}}]}'));
    expect(nested).toMatchObject({ violations: [{ field: "parts[1].quantity" }] });
    const unknown = await errorOf(await post("Echo", '{"txet":"x"}'));
    expect(unknown.message).toContain('"txet"');
  });

  test("methods with a larger limit take more", async () => {
    await start();
    expect((await post("Batch", `{"text":"${"x".repeat(150_000)}"}`)).status).toBe(200);
  });

  test("a fault of the handler is masked", async () => {
    await start({ handlers: { echo: () => Promise.reject(new Error("password of the database")) } });
    const response = await post("Echo", '{"text":"x"}');
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain("password");
  });

  test("only POST, only known content types, no bidi streams", async () => {
    await start();
    expect((await fetch(`${server?.webUrl}/testing.v1.EchoService/Echo`, { headers: key })).status).toBe(405);
    expect((await post("Echo", "text=x", { "content-type": "application/x-www-form-urlencoded" })).status).toBe(415);
    expect((await post("Chat", "", { "content-type": "application/connect+json" })).status).toBe(505);
  });

  test("headers above 8 KiB are refused", async () => {
    await start();
    expect((await post("Echo", "{}", { "x-long": "y".repeat(9_000) })).status).toBe(431);
  });

  test("no other origin's page may read an answer", async () => {
    await start();
    const response = await post("Echo", '{"text":"x"}', { origin: "https://evil.example" });
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("gRPC-Web by hand", () => {
  /** Data frames and the trailer frame of an answer. */
  async function grpcWeb(path: string, body: Uint8Array) {
    const response = await post(path, body, { "content-type": "application/grpc-web+proto" });
    const bytes = Buffer.from(await response.arrayBuffer());
    const messages: Buffer[] = [];
    let trailer = "";
    for (let at = 0; at < bytes.length; ) {
      const end = at + 5 + bytes.readUInt32BE(at + 1);
      if (bytes[at] === 0x80) trailer = bytes.toString("utf8", at + 5, end);
      else messages.push(bytes.subarray(at + 5, end));
      at = end;
    }
    const details = /grpc-status-details-bin: (\S+)/.exec(trailer)?.[1];
    const error = details && fromStatus(fromBinary(StatusSchema, Buffer.from(details, "base64")));
    return { messages, status: /grpc-status: (\d+)/.exec(trailer)?.[1], error };
  }

  function frame(message: Uint8Array): Buffer {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    return Buffer.concat([head, message]);
  }

  const request = (text: string) => toBinary(EchoRequestSchema, create(EchoRequestSchema, { text, count: 2 }));

  test("answers unary calls and streams", async () => {
    await start();
    const unary = await grpcWeb("Echo", frame(request("hi")));
    expect(unary.status).toBe("0");
    expect(unary.messages.map((bytes) => fromBinary(EchoResponseSchema, bytes).text)).toEqual(["acme:hi"]);
    const stream = await grpcWeb("Expand", frame(request("n")));
    expect(stream.messages.map((bytes) => fromBinary(EchoResponseSchema, bytes).count)).toEqual([0, 1]);
  });

  test.each(["application/grpc-web+json", "application/connect+json", "application/connect+json; charset=utf-8"])(
    "a list in %s is held to its rules",
    async (type) => {
      await start();
      const body = JSON.stringify({ text: "n", parts: Array.from({ length: 101 }, () => ({})) });
      const response = await post("Expand", frame(Buffer.from(body)), { "content-type": type });
      expect(await response.text()).toMatch(/parts.*100/);
    },
  );

  test.each([
    ["bytes that are no message", "Echo", frame(Buffer.from([0xff, 0xff])), "MALFORMED_MESSAGE"],
    ["no message at all", "Echo", Buffer.alloc(0), "MALFORMED_MESSAGE"],
    ["two messages", "Echo", Buffer.concat([frame(request("a")), frame(request("b"))]), "MALFORMED_MESSAGE"],
    ["half a frame", "Echo", frame(request("a")).subarray(0, 6), "MALFORMED_MESSAGE"],
    ["a message too large", "Expand", frame(request("x".repeat(70_000))), "MESSAGE_TOO_LARGE"],
    ["a broken rule", "Expand", frame(request("")), "INVALID_FIELD"],
    // Whatever follows them: that they are too many is seen before anything is decoded.
    [
      "too many items",
      "Expand",
      frame(Buffer.concat([Buffer.alloc(202, Buffer.from([0x22, 0])), Buffer.from([0xff])])),
      "INVALID_FIELD",
    ],
  ])("refuses %s with its reason", async (_what, path, body, reason) => {
    await start();
    expect(await grpcWeb(path, body)).toMatchObject({ status: "3", error: { code: "INVALID_ARGUMENT", reason } });
  });
});

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

describe("a caller that leaves", () => {
  test("aborts the handler's signal", async () => {
    const { gate, calls, handler } = stubborn();
    await start({ handlers: { echo: handler } });
    const controller = new AbortController();
    const call = fetch(`${server?.webUrl}/testing.v1.EchoService/Echo`, {
      method: "POST",
      headers: { "content-type": "application/json", ...key },
      body: '{"text":"x"}',
      signal: controller.signal,
    });
    await until("the handler runs", () => calls.length === 1);
    controller.abort();
    await expect(call).rejects.toThrow();
    await until("the handler hears of it", () => calls[0]?.signal.aborted === true);
    expect(calls[0]?.signal.reason).toMatchObject({ code: "CANCELLED" });
    gate.resolve();
  });

  test("in the middle of a pipeline of refused requests harms nobody", async () => {
    const { webUrl } = await start();
    const { hostname, port } = new URL(webUrl);
    const body = '{"text":"x"}';
    const head = `POST /testing.v1.EchoService/Echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n`;
    for (let round = 0; round < 20; round++) {
      const socket = connect(Number(port), hostname);
      await once(socket, "connect");
      socket.write(`${head}content-length: ${body.length}\r\n\r\n${body}`.repeat(20), () => socket.destroy());
      await once(socket, "close");
      // An error that nobody listens for would end the process: here it fails the test.
      expect((await post("Echo", body)).status).toBe(200);
    }
  });

  test("ends a stream's generator, and was never far behind it", async () => {
    const ended = Promise.withResolvers<void>();
    let made = 0;
    const { webUrl } = await start({
      handlers: {
        async *expand() {
          try {
            for (;;) {
              made++;
              yield { text: "x".repeat(100_000) };
            }
          } finally {
            ended.resolve();
          }
        },
      },
    });
    const transport = createConnectTransport({ baseUrl: webUrl, httpVersion: "1.1" });
    const controller = new AbortController();
    const options = { signal: controller.signal, headers: key };
    const replies = createClient(EchoService, transport).expand({ text: "x" }, options)[Symbol.asyncIterator]();
    await replies.next();
    // Buffers on the way fill up, sockets' ones mostly, then nothing moves any more.
    let before = 0;
    await until("the handler waits", async () => {
      const last = before;
      before = made;
      for (let i = 0; i < 5; i++) await post("Echo", '{"text":"x"}');
      return made === last;
    });
    expect(made).toBeLessThan(300);
    controller.abort();
    await ended.promise;
  });
});

describe("stop", () => {
  test("lets unary calls finish, ends streams, takes no new calls", async () => {
    const { gate, calls, handler } = stubborn();
    const { web, webUrl } = await start({
      handlers: {
        echo: handler,
        async *expand(_ctx, call) {
          yield {};
          await new Promise((_resolve, reject) =>
            call.signal.addEventListener("abort", () => reject(call.signal.reason)),
          );
        },
      },
    });
    const unary = post("Echo", '{"text":"x"}');
    const transport = createConnectTransport({ baseUrl: webUrl, httpVersion: "1.1" });
    const replies = createClient(EchoService, transport)
      .expand({ text: "x" }, { headers: key })
      [Symbol.asyncIterator]();
    await replies.next();
    await until("the handler runs", () => calls.length === 1);

    const stop = web.stop(10_000);
    await expect(replies.next()).rejects.toThrow("this instance is ending");
    await expect(post("Echo", '{"text":"x"}')).rejects.toThrow("fetch failed");
    gate.resolve();
    const response = await unary;
    expect(response.headers.get("connection")).toBe("close");
    expect(await response.json()).toMatchObject({ text: "done" });
    await stop;
    expect(calls).toHaveLength(1);
  });

  test("answers what outlives the grace", async () => {
    const { gate, calls, handler } = stubborn();
    const { web } = await start({ handlers: { echo: handler } });
    const call = post("Echo", '{"text":"x"}');
    await until("the handler runs", () => calls.length === 1);
    const stop = web.stop(50);
    expect(await errorOf(await call)).toMatchObject({ status: 503, reason: "SHUTTING_DOWN" });
    await stop;
    gate.resolve();
  });
});

const place = {
  bindings: [echoBinding()],
  pipeline: echoPipeline(),
  host: "127.0.0.1",
  logger: createLogger({ level: "silent", name: "test" }),
};

test("plain routes stand beside the methods", async () => {
  const web = createWebServer({
    ...place,
    port: 0,
    routes: { "GET /health": (_request, response) => void response.writeHead(200).end("fine") },
  });
  const { port } = await web.start();
  expect(await (await fetch(`http://127.0.0.1:${port}/health?verbose`)).text()).toBe("fine");
  expect((await fetch(`http://127.0.0.1:${port}/health`, { method: "POST" })).status).toBe(404);
  await web.stop(0);
});

test("a port that is taken is named", async () => {
  const { webUrl } = await start();
  const port = Number(new URL(webUrl).port);
  await expect(createWebServer({ ...place, port }).start()).rejects.toMatchObject({
    code: "EADDRINUSE",
    message: `can't listen on 127.0.0.1:${port}: the port is in use`,
  });
});

test("a refusal carries the headers that a handler set, and on plain HTTP retry-after in whole seconds", async () => {
  await start({
    handlers: {
      echo: async (_ctx, call) => {
        tellAllowance(call, { limit: 10, remaining: 0, resetMs: 1_500 });
        throw platformError("RATE_LIMITED", "too many", { retryAfterMs: 1_500 });
      },
    },
  });
  const json = await post("Echo", '{"text":"x"}');
  expect(json.status).toBe(429);
  const message = toBinary(EchoRequestSchema, create(EchoRequestSchema, { text: "x" }));
  const frame = Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
  const grpcWeb = await post("Echo", frame, { "content-type": "application/grpc-web+proto" });
  for (const { headers } of [json, grpcWeb]) {
    expect(["limit", "remaining", "reset"].map((name) => headers.get(`ratelimit-${name}`))).toEqual(["10", "0", "2"]);
  }
  expect(json.headers.get("retry-after")).toBe("2");
});
