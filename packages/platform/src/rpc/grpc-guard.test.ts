import { once } from "node:events";
import { type ClientHttp2Stream, connect, constants } from "node:http2";
import * as grpc from "@grpc/grpc-js";
import { expect, test } from "@jest/globals";
import { echoBinding, echoPipeline } from "../testing/echo-server.ts";
import { createArrivals, guardArrival } from "./grpc-guard.ts";

const KIB = 1024;

/** A server with nothing but the guard, which answers each whole request with itself. */
async function start(maxArrivingBytes: number) {
  const routes = echoPipeline().routes(echoBinding());
  const server = new grpc.Server({ interceptors: [guardArrival(routes, createArrivals(maxArrivingBytes))] });
  const asIs = (bytes: Buffer) => bytes;
  const codec = {
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
  const path = "/testing.v1.EchoService/Batch";
  const answer = (call: grpc.ServerUnaryCall<Buffer, Buffer>, respond: grpc.sendUnaryData<Buffer>) =>
    respond(null, call.request);
  server.addService({ batch: { path, requestStream: false, responseStream: false, ...codec } }, { batch: answer });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const session = connect(`http://127.0.0.1:${port}`);
  return {
    /** Begins a call and sends so many bytes of its message of 128 KiB. */
    begin(bytes: number): ClientHttp2Stream {
      const headers = { ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" };
      const stream = session.request(headers);
      stream.on("error", () => {});
      stream.write(Buffer.from([0, 0, 2, 0, 0]));
      stream.write(Buffer.alloc(bytes));
      return stream;
    },
    stop() {
      session.destroy();
      server.forceShutdown();
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
  other?.end(Buffer.alloc(28 * KIB));
  expect(other && (await statusOf(other))).toBe("0");
  for (let i = 0; i < 5; i++) {
    const whole = server.begin(100 * KIB);
    whole.end(Buffer.alloc(28 * KIB));
    expect(await statusOf(whole)).toBe("0");
    const cut = server.begin(100 * KIB);
    cut.close(constants.NGHTTP2_CANCEL);
    await new Promise((resolve) => cut.once("close", resolve));
  }
  server.stop();
});
