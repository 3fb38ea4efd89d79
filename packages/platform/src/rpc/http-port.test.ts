import { once } from "node:events";
import type { RequestListener } from "node:http";
import { type ClientHttp2Session, connect as connectHttp2, constants } from "node:http2";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterEach, expect, test } from "@jest/globals";
import { echoKeys, startEchoServer } from "../testing/echo-server.ts";
import { EchoService } from "../testing/echo-service.ts";
import { until } from "../testing/until.ts";
import { createHttpPort, type HttpPort, type HttpPortTimes } from "./http-port.ts";

let web: HttpPort | undefined;
const opened: (Socket | ClientHttp2Session)[] = [];

afterEach(async () => {
  for (const each of opened.splice(0)) each.destroy();
  await web?.drain();
  web = undefined;
});

/** Answers with the version of HTTP and the body. */
const echo: RequestListener = async (request, response) => {
  response.end(`${request.httpVersion} ${await text(request)}`);
};

async function start(times?: HttpPortTimes, listener = echo): Promise<number> {
  web = createHttpPort(listener, times);
  return web.listen("127.0.0.1", 0);
}

function open1(port: number): Socket {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  opened.push(socket);
  return socket;
}

function open2(port: number): ClientHttp2Session {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  opened.push(session);
  return session;
}

/** The status and the body of a request over HTTP/2. */
async function ask(session: ClientHttp2Session, headers = {}, body = ""): Promise<string> {
  const stream = session.request({ ":method": "POST", ":path": "/", ...headers });
  stream.end(body);
  const [{ ":status": status }] = await once(stream, "response");
  return `${status} ${await text(stream)}`;
}

const getOverHttp1 = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

test("both versions of HTTP on one port, however the first bytes arrive", async () => {
  const port = await start();
  expect(await (await fetch(`http://127.0.0.1:${port}`, { method: "POST", body: "hi" })).text()).toBe("1.1 hi");
  expect(await ask(open2(port), {}, "hi")).toBe("200 2.0 hi");
  const socket = open1(port);
  socket.setNoDelay(true);
  for (const byte of "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
    socket.write(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  // The server's SETTINGS come only when it has taken the preface for what it is.
  socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
  const [first] = (await once(socket, "data")) as [Buffer];
  expect(first[3]).toBe(4);
});

test("a bidi stream over HTTP/2", async () => {
  const server = await startEchoServer();
  const transport = createConnectTransport({ baseUrl: server.webUrl, httpVersion: "2" });
  const headers = { authorization: `Bearer ${echoKeys.allowed}` };
  const asked = (async function* () {
    yield { text: "a" };
    yield { text: "b" };
  })();
  const answers: string[] = [];
  for await (const { text } of createClient(EchoService, transport).chat(asked, { headers })) answers.push(text);
  expect(answers).toEqual(["A", "B"]);
  await server.stop();
});

test("HTTP/2 tells its limits and keeps them", async () => {
  const session = open2(await start());
  const [settings] = await once(session, "remoteSettings");
  expect(settings).toMatchObject({ maxConcurrentStreams: 100, maxHeaderListSize: 8_192 });
  const refused = session.request({ ":method": "POST", ":path": "/", "x-long": "a".repeat(9_000) });
  refused.on("error", () => {});
  refused.end();
  await new Promise((resolve) => refused.once("close", resolve));
  expect(refused.rstCode).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  expect(await ask(session)).toBe("200 2.0 ");
});

test("a connection that resets many streams is ended", async () => {
  let begun = 0;
  const socket = open1(
    await start({}, () => {
      begun += 1;
    }),
  );
  const frame = (type: number, flags: number, stream: number, payload: number[]) =>
    Buffer.from([0, 0, payload.length, type, flags, 0, 0, stream >> 8, stream & 0xff, ...payload]);
  socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, [])]));
  const sentAt = performance.now();
  for (let stream = 1; stream < 1_000; stream += 2) {
    // POST, http and / by their indices in HPACK's static table, then CANCEL.
    socket.write(Buffer.concat([frame(1, 5, stream, [0x83, 0x86, 0x84]), frame(3, 0, stream, [0, 0, 0, 8])]));
  }
  const said = await text(socket);
  // Thirty, and ten more for each second that it touches.
  expect(begun).toBeLessThanOrEqual(31 + 10 * Math.ceil((performance.now() - sentAt) / 1_000));
  // GOAWAY is the last that it said, with the code that nghttp2 has for this.
  expect(Buffer.from(said, "latin1").subarray(-17, -13)).toEqual(Buffer.from([0, 0, 8, 7]));
  expect(said.charCodeAt(said.length - 1)).toBe(constants.NGHTTP2_INTERNAL_ERROR);
});

test("a pipeline of many requests is ended", async () => {
  let begun = 0;
  const socket = open1(
    await start({}, () => {
      begun += 1;
    }),
  );
  socket.resume();
  socket.write(getOverHttp1.repeat(300));
  await once(socket, "close");
  expect(begun).toBe(10);
});

test("an unfinished request or none at all ends a connection", async () => {
  const port = await start({ headersTimeoutMs: 50 });
  for (const bytes of ["", "PRI * HT"]) {
    const socket = open1(port);
    socket.resume();
    if (bytes !== "") socket.write(bytes);
    await once(socket, "close");
  }
});

test("a connection that is old is ended when it has nothing under way", async () => {
  const gate = Promise.withResolvers<void>();
  let waiting = 0;
  const port = await start({ maxAgeMs: 5_000, ageGraceMs: 60_000 }, async (request, response) => {
    if (request.url === "/wait") {
      waiting += 1;
      await gate.promise;
    }
    response.end("done");
  });
  const idle = open1(port);
  idle.resume();
  idle.write(getOverHttp1);
  const busy = open1(port);
  busy.write("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  const session = open2(port);
  const answer = ask(session, { ":path": "/wait" });
  await until("two wait", () => waiting === 2);
  await once(idle, "close");
  await until("HTTP/2 was told to go", () => session.closed);
  gate.resolve();
  expect(await text(busy)).toContain("connection: close");
  expect(await answer).toBe("200 done");
  await until("its connection is gone", () => session.destroyed);
});

test("what outlasts the grace of its connection is cut", async () => {
  const port = await start({ maxAgeMs: 50, ageGraceMs: 50 }, () => {});
  const socket = open1(port);
  socket.resume();
  socket.write(getOverHttp1);
  await once(socket, "close");
});
