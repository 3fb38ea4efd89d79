import { once } from "node:events";
import { type ClientHttp2Stream, connect, constants, type IncomingHttpHeaders } from "node:http2";
import { createConnection } from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type EchoServer, type EchoServerOptions, echoKeys, startEchoServer } from "../testing/echo-server.ts";
import { EchoRequestSchema, EchoResponseSchema } from "../testing/echo-service.ts";
import { until } from "../testing/until.ts";
import { Frames, toFrames } from "./grpc-frames.ts";

let server: EchoServer | undefined;
const closing: (() => void)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0)) close();
  await server?.stop();
});

async function start(options: EchoServerOptions = {}) {
  const started = await startEchoServer(options);
  server = started;
  const [host = "", port] = started.grpcAddress.split(":");
  const socket = createConnection(Number(port), host);
  const session = connect(`http://${started.grpcAddress}`, { createConnection: () => socket });
  closing.push(() => session.destroy());
  const open = (method: string): ClientHttp2Stream => {
    const stream = session.request({
      ":method": "POST",
      ":path": `/testing.v1.EchoService/${method}`,
      "content-type": "application/grpc",
      te: "trailers",
      authorization: `Bearer ${echoKeys.allowed}`,
    });
    stream.on("error", () => {});
    return stream;
  };
  /** Resets a stream and says nothing before: Node's client would first say that it has sent all. */
  const reset = ({ id }: ClientHttp2Stream, code: number): void => {
    const frame = Buffer.from([0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.writeUInt32BE(id ?? 0, 5);
    frame.writeUInt32BE(code, 9);
    socket.write(frame);
  };
  return { open, reset };
}

function framed(...texts: readonly string[]): Buffer {
  return toFrames(texts.map((text) => toBinary(EchoRequestSchema, create(EchoRequestSchema, { text }))));
}

/** The texts and the status that a call was answered with. */
async function answerOf(stream: ClientHttp2Stream): Promise<{ texts: string[]; status: unknown; message: string }> {
  let status: IncomingHttpHeaders = {};
  const note = (headers: IncomingHttpHeaders) => {
    if (headers["grpc-status"] !== undefined) status = headers;
  };
  stream.on("response", note).on("trailers", note);
  const frames = new Frames(1_000_000);
  const texts: string[] = [];
  stream.on("data", (chunk: Buffer) => {
    frames.add(chunk);
    for (let bytes = frames.next(); bytes !== undefined; bytes = frames.next()) {
      texts.push(fromBinary(EchoResponseSchema, bytes).text);
    }
  });
  await once(stream, "end");
  return { texts, status: status["grpc-status"], message: decodeURI(String(status["grpc-message"])) };
}

/** Bytes cut into chunks at these places, which count from the beginning and may lie outside or come twice. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const edges = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 });
const places = fc.array(fc.nat(), { maxLength: 40 });

test("messages are the same wherever the chunks of them begin and end", () => {
  fc.assert(
    fc.property(messages, places, fc.boolean(), (sent, at, atOnce) => {
      const frames = new Frames(300);
      const taken: Buffer[] = [];
      const take = () => {
        for (let bytes = frames.next(); bytes !== undefined; bytes = frames.next()) taken.push(bytes);
      };
      for (const chunk of cut(toFrames(sent), at)) {
        frames.add(chunk);
        if (!atOnce) take();
      }
      take();
      expect(taken.map((bytes) => [...bytes])).toEqual(sent.map((bytes) => [...bytes]));
      expect(frames.held).toBe(0);
    }),
  );
});

test("a conversation is the same wherever the chunks of it begin and end", async () => {
  const { open } = await start();
  await fc.assert(
    fc.asyncProperty(fc.array(fc.stringMatching(/^[a-z]{1,30}$/), { maxLength: 8 }), places, async (texts, at) => {
      const stream = open("Chat");
      const answer = answerOf(stream);
      for (const chunk of cut(framed(...texts), at)) stream.write(chunk);
      stream.end();
      expect(await answer).toEqual({ texts: texts.map((text) => text.toUpperCase()), status: "0", message: "OK" });
    }),
    { numRuns: 40 },
  );
});

test("a caller who has sent all still gets what is answered later", async () => {
  const gate = Promise.withResolvers<void>();
  const { open } = await start({
    handlers: {
      async *chat(_ctx, _call, requests) {
        for await (const { text } of requests) yield { text };
        await gate.promise;
        yield { text: "late" };
      },
    },
  });
  const stream = open("Chat");
  const answer = answerOf(stream);
  stream.end(framed("early"));
  await once(stream, "response");
  gate.resolve();
  expect(await answer).toMatchObject({ texts: ["early", "late"], status: "0" });
});

test("a handler that has heard enough ends the call, although its caller goes on", async () => {
  const { open } = await start({
    handlers: {
      async *chat(_ctx, _call, requests) {
        for await (const { text } of requests) {
          yield { text };
          return;
        }
      },
    },
  });
  const stream = open("Chat");
  const answer = answerOf(stream);
  for (let i = 0; i < 10; i++) stream.write(framed("x".repeat(20_000)));
  expect(await answer).toMatchObject({ texts: ["x".repeat(20_000)], status: "0" });
  // The rest of it was read and dropped: the connection has room for others.
  const other = open("Chat");
  const next = answerOf(other);
  other.end(framed("y".repeat(60_000)));
  expect(await next).toMatchObject({ status: "0" });
});

describe("a stream of requests is refused", () => {
  test.each([
    ["that ends within a message", framed("whole", "cut off").subarray(0, -3), "must end behind a message"],
    ["with a message that is compressed", Buffer.concat([framed("whole"), Buffer.from([1, 0, 0, 0, 0])]), "compressed"],
    ["with a message too large", Buffer.concat([framed("whole"), Buffer.from([0, 0, 1, 0, 1])]), "65536"],
  ])("%s, after the answers to those before", async (_what, bytes, message) => {
    const { open } = await start();
    const stream = open("Chat");
    const answer = answerOf(stream);
    stream.end(bytes);
    expect(await answer).toMatchObject({
      texts: ["WHOLE"],
      status: "3",
      message: expect.stringContaining(message),
    });
  });
});

test.each([
  ["cancels", constants.NGHTTP2_CANCEL],
  ["goes without a word of error", constants.NGHTTP2_NO_ERROR],
])("a caller who %s does not look like one who has sent all", async (_what, code) => {
  const outcome = Promise.withResolvers<unknown>();
  const { open, reset } = await start({
    handlers: {
      async *chat(_ctx, _call, requests) {
        try {
          for await (const { text } of requests) yield { text };
          outcome.resolve("the input looked complete");
        } catch (error) {
          outcome.resolve(error);
        }
      },
    },
  });
  const stream = open("Chat");
  stream.write(framed("x"));
  await once(stream, "response");
  reset(stream, code);
  expect(await outcome.promise).toMatchObject({ code: "CANCELLED" });
});

test("a caller who sends and reads nothing is not read for ever, and what is in between arrives once it reads", async () => {
  let taken = 0;
  const { open } = await start({
    handlers: {
      async *chat(_ctx, _call, requests) {
        for await (const { text } of requests) {
          taken++;
          yield { text };
        }
      },
    },
  });
  const stream = open("Chat");
  const count = 100;
  for (let i = 0; i < count; i++) stream.write(framed("x".repeat(10_000)));
  stream.end();
  // Two windows, what the handler may have unsent, and what Node holds of a stream.
  let before = -1;
  await until("the handler waits", async () => {
    const last = before;
    before = taken;
    const other = open("Echo");
    const answered = answerOf(other);
    other.end(framed("x"));
    await answered;
    return taken > 0 && taken === last;
  });
  expect(taken).toBeLessThan(60);
  expect((await answerOf(stream)).texts).toHaveLength(count);
});
