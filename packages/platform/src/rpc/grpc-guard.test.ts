import { once } from "node:events";
import { type ClientHttp2Stream, connect, constants, createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import * as grpc from "@grpc/grpc-js";
import { expect, test } from "@jest/globals";
import { echoBinding, echoKeys, echoPipeline } from "../testing/echo-server.ts";
import { serveCalls } from "./grpc-calls.ts";
import { type Arrivals, createArrivals } from "./grpc-guard.ts";
import { createOpenCalls } from "./server.ts";

const KIB = 1024;

/** The echo service with room for so many bytes of requests on their way. */
async function start(maxArrivingBytes: number) {
  const routes = echoPipeline().routes(echoBinding());
  const arrivals = createArrivals(maxArrivingBytes);
  let held = 0;
  let changed = (): void => {};
  const watched: Arrivals = {
    hold(bytes) {
      held += bytes;
      changed();
      return arrivals.hold(bytes);
    },
    letGo(bytes) {
      held -= bytes;
      changed();
      arrivals.letGo(bytes);
    },
  };
  const take = serveCalls(routes, createOpenCalls(), watched);
  const server = createServer().on("stream", take);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const session = connect(`http://127.0.0.1:${port}`);
  return {
    /** Begins a call and sends so many bytes of its message of 128 KiB. */
    begin(bytes: number, method = "Batch"): ClientHttp2Stream {
      const headers = {
        ":method": "POST",
        ":path": `/testing.v1.EchoService/${method}`,
        "content-type": "application/grpc",
        te: "trailers",
        authorization: `Bearer ${echoKeys.allowed}`,
      };
      const stream = session.request(headers);
      stream.on("error", () => {});
      // Its one field, a text, has four bytes less.
      stream.write(Buffer.from([0, 0, 2, 0, 0, 0x0a, 0xfc, 0xff, 0x07]));
      stream.write(Buffer.alloc(bytes - 4, "x"));
      return stream;
    },
    /** Resolves when requests on their way hold so many bytes. */
    async holds(bytes: number): Promise<void> {
      while (held !== bytes) {
        await new Promise<void>((resolve) => {
          changed = resolve;
        });
      }
    },
    stop() {
      session.destroy();
      server.close();
    },
  };
}

async function statusOf(stream: ClientHttp2Stream): Promise<unknown> {
  const trailers = new Promise<unknown>((resolve) => stream.once("trailers", (sent) => resolve(sent["grpc-status"])));
  const [headers] = await once(stream, "response");
  stream.resume();
  return headers["grpc-status"] ?? trailers;
}

test("requests that arrive together hold so much memory and no more, and give it back", async () => {
  const server = await start(150 * KIB);
  const streams = [server.begin(100 * KIB), server.begin(100 * KIB)];
  // Whichever went over the limit is refused, and the other one has room again.
  const refused = await Promise.race(streams.map(async (stream) => ({ stream, status: await statusOf(stream) })));
  expect(refused.status).toBe(`${grpc.status.UNAVAILABLE}`);
  const other = streams.find((stream) => stream !== refused.stream);
  other?.end(Buffer.alloc(28 * KIB, "x"));
  expect(other && (await statusOf(other))).toBe("0");
  for (let i = 0; i < 5; i++) {
    const whole = server.begin(100 * KIB);
    whole.end(Buffer.alloc(28 * KIB, "x"));
    expect(await statusOf(whole)).toBe("0");
    const cut = server.begin(100 * KIB);
    cut.close(constants.NGHTTP2_CANCEL);
    await new Promise((resolve) => cut.once("close", resolve));
  }
  server.stop();
});

// What node:http2 tells of it differs.
test.each([
  ["without an error", constants.NGHTTP2_CANCEL],
  ["with one", constants.NGHTTP2_INTERNAL_ERROR],
])("a caller who leaves within its request, %s, gives back what that holds", async (_how, code) => {
  const server = await start(150 * KIB);
  const stream = server.begin(1 * KIB);
  // The prefix has five bytes.
  await server.holds(5 + 1 * KIB);
  stream.close(code);
  await server.holds(0);
  server.stop();
});
