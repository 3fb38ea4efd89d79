import { create } from "@bufbuild/protobuf";
import { AnySchema, anyPack } from "@bufbuild/protobuf/wkt";
import { ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { fromStatus, invalidArgument, ServiceError } from "../errors.ts";
import { type EchoServer, echoKeys, startEchoServer } from "../testing/echo-server.ts";
import { type EchoResponse, EchoService } from "../testing/echo-service.ts";
import { type Channel, createChannel } from "./client.ts";
import { createLocalTransport } from "./local.ts";

const headers = { authorization: `Bearer ${echoKeys.allowed}` };
let server: EchoServer;
let channel: Channel;

beforeAll(async () => {
  server = await startEchoServer({
    handlers: {
      async batch(_ctx, call) {
        call.responseHeaders.set("x-first", "1");
        call.responseTrailers.set("x-last", "2");
        return {};
      },
      async *expand(_ctx, call, { text, count }) {
        call.responseHeaders.set("x-first", "3");
        for (let i = 0; i < count; i++) yield { text, count: i };
        call.responseTrailers.set("x-last", "4");
      },
      write: () => Promise.reject(invalidArgument("text", "must be something else")),
    },
  });
  channel = createChannel({ address: server.grpcAddress, credential: echoKeys.allowed });
});

afterAll(async () => {
  channel.close();
  await server.stop();
});

async function texts(replies: AsyncIterable<EchoResponse>): Promise<string[]> {
  const all: string[] = [];
  for await (const { text, count } of replies) all.push(`${text}${count}`);
  return all;
}

async function* words(...all: string[]) {
  for (const text of all) yield { text };
}

const web = () => ({ baseUrl: server.webUrl, httpVersion: "1.1" as const, interceptors: [withKey] });
const withKey: Interceptor = (next) => (request) => {
  request.header.set("authorization", headers.authorization);
  return next(request);
};

const transports: [string, () => Transport][] = [
  ["gRPC", () => channel],
  ["in-process", () => createLocalTransport({ ...server, headers })],
  ["Connect JSON", () => createConnectTransport({ ...web(), useBinaryFormat: false })],
  ["Connect binary", () => createConnectTransport({ ...web(), useBinaryFormat: true })],
  ["gRPC-Web", () => createGrpcWebTransport(web())],
  ["gRPC-Web JSON", () => createGrpcWebTransport({ ...web(), useBinaryFormat: false })],
];

describe.each(transports)("%s", (_name, transport) => {
  const client = () => createClient(EchoService, transport());

  test("unary", async () => {
    await expect(client().echo({ text: "hi", count: 2 })).resolves.toMatchObject({ text: "acme:hi", count: 2 });
  });

  test("server streaming", async () => {
    await expect(texts(client().expand({ text: "n", count: 3 }))).resolves.toEqual(["n0", "n1", "n2"]);
    await expect(texts(client().expand({ text: "n", count: 0 }))).resolves.toEqual([]);
  });

  test("client streaming", async () => {
    await expect(client().collect(words("a", "b", "c"))).resolves.toMatchObject({ text: "a b c", count: 3 });
    await expect(client().collect(words())).resolves.toMatchObject({ count: 0 });
  });

  test("headers and trailers of the answer", async () => {
    const seen: Record<string, string | null> = {};
    const options = {
      onHeader(header: Headers) {
        seen.header = header.get("x-first");
      },
      onTrailer(trailer: Headers) {
        seen.trailer = trailer.get("x-last");
      },
    };
    await client().batch({ text: "x" }, options);
    expect(seen).toEqual({ header: "1", trailer: "2" });
    await texts(client().expand({ text: "x", count: 1 }, options));
    expect(seen).toEqual({ header: "3", trailer: "4" });
  });

  test("an error of a unary method and of a stream, with its details", async () => {
    for (const failing of [client().write({ text: "x" }), texts(client().expand({ text: "", count: 1 }))]) {
      const error = await failing.catch((caught: unknown) => caught);
      const { code, reason, violations } = error instanceof ServiceError ? error : rebuilt(error);
      expect({ code, reason, fields: violations.map(({ field }) => field) }).toEqual({
        code: "INVALID_ARGUMENT",
        reason: "INVALID_FIELD",
        fields: ["text"],
      });
    }
  });
});

describe.each(transports.slice(0, 2))("bidi streaming over %s", (_name, transport) => {
  test("answers while the input is still open", async () => {
    const goOn = Promise.withResolvers<void>();
    async function* input() {
      yield { text: "first" };
      await goOn.promise;
      yield { text: "second" };
    }
    const replies = createClient(EchoService, transport()).chat(input())[Symbol.asyncIterator]();
    await expect(replies.next()).resolves.toMatchObject({ value: { text: "FIRST" } });
    goOn.resolve();
    await expect(replies.next()).resolves.toMatchObject({ value: { text: "SECOND" } });
    await expect(replies.next()).resolves.toMatchObject({ done: true });
  });
});

/** What connect's own clients received, as our error. */
function rebuilt(error: unknown): ServiceError {
  const { code, rawMessage, details } = ConnectError.from(error);
  const packed = details.map((detail) =>
    "desc" in detail
      ? anyPack(detail.desc, create(detail.desc, detail.value))
      : create(AnySchema, { typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value }),
  );
  return fromStatus({ code, message: rawMessage, details: packed });
}
