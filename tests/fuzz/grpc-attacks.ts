import { deflateSync, gzipSync } from "node:zlib";
import { type DescMethod, fromBinary } from "@bufbuild/protobuf";
import { type Attack, below, noise, pick, type Target } from "./attack.ts";
import { envelope, flag, frame, literals, type } from "./frames.ts";
import { callHeaders } from "./http2-attacks.ts";
import { mutate } from "./mutate.ts";
import { openHttp2, type RawHttp2, type StreamAnswer } from "./raw-http2.ts";
import { sampleOf } from "./samples.ts";
import { errorName, type Tally } from "./tally.ts";

/** Longer than any deadline, also where the machine is busy with other things. */
const PATIENCE_MS = 120_000;
/** Calls of one round; each has a stream of its own on one connection. */
const CALLS = 60;

/** The refusals of what a caller says wrong. */
const refusals = ["grpc INVALID_ARGUMENT", "grpc UNIMPLEMENTED", "grpc DEADLINE_EXCEEDED"];
/** How it may be answered that a message has nothing to do with the contract, or asks for what is not there. */
const decisions = [
  "grpc OK",
  "grpc NOT_FOUND",
  "grpc ALREADY_EXISTS",
  "grpc FAILED_PRECONDITION",
  "grpc PERMISSION_DENIED",
  "grpc ABORTED",
  "grpc UNAVAILABLE",
];

/** A deadline, without which a stream that was opened by chance would stay open. */
const shortly = [["grpc-timeout", "2S"]] as const;

/** 58 KB each that become 60 MB. */
const packed = { gzip: gzipSync(Buffer.alloc(60_000_000)), deflate: deflateSync(Buffer.alloc(60_000_000)) };

interface RawCall {
  readonly what: string;
  readonly headers: Buffer;
  /** The DATA frames' content; END_STREAM comes with the last one. */
  readonly body: readonly Buffer[];
}

/** Makes calls on one connection and hands over what came of each. */
async function callAll(
  target: Target,
  tally: Tally,
  calls: readonly RawCall[],
  each: (answer: StreamAnswer, index: number) => void = () => {},
): Promise<void> {
  const connection = await openHttp2(target.grpcPort);
  try {
    const streams = calls.map((_, index) => index * 2 + 1);
    for (const [index, { headers, body }] of calls.entries()) {
      tally.act();
      if (!(await connection.send(...callFrames(index * 2 + 1, headers, body)))) break;
    }
    const answers = await connection.answers(streams, PATIENCE_MS);
    for (const [index, answer] of answers.entries()) {
      tally.noteStream(answer, calls[index]?.what);
      if (!answer.ended && !connection.closed) tally.find(`no answer to ${calls[index]?.what} in ${PATIENCE_MS} ms`);
      each(answer, index);
    }
    noteEnd(connection, tally);
  } finally {
    connection.close();
  }
}

function callFrames(stream: number, headers: Buffer, body: readonly Buffer[]): Buffer[] {
  const end = body.length === 0 ? flag.endStream : 0;
  const pieces = body.flatMap((bytes) => {
    const cut: Buffer[] = [];
    for (let at = 0; at === 0 || at < bytes.length; at += 16_000) cut.push(bytes.subarray(at, at + 16_000));
    return cut;
  });
  return [
    frame(type.headers, flag.endHeaders | end, stream, headers),
    ...pieces.map((bytes, i) => frame(type.data, i === pieces.length - 1 ? flag.endStream : flag.none, stream, bytes)),
  ];
}

function noteEnd(connection: RawHttp2, tally: Tally): void {
  if (connection.goaway !== undefined) tally.note(`goaway ${errorName(connection.goaway)}`);
  else if (connection.closed) tally.note("cut");
}

const framing: Attack = {
  name: "grpc-framing",
  about: "gRPC messages with lengths that lie, none, two, unknown flags and encodings, wrong timeouts, paths and types",
  answers: [...refusals, "grpc OK", "http 415", "reset NO_ERROR", "reset PROTOCOL_ERROR", "grpc UNAUTHENTICATED"],
  async round(target, tally) {
    const { path, request } = sampleOf(target.methods, "ValidateFeature");
    const valid = Buffer.from(request());
    const call = (
      what: string,
      body: readonly Buffer[],
      more: readonly (readonly [string, string])[] = [],
    ): RawCall => ({
      what,
      headers: callHeaders("grpc", path, target.key, more),
      body,
    });
    const sent = [envelope(valid)];
    const raw = (what: string, headers: readonly (readonly [string, string])[]): RawCall => ({
      what,
      headers: literals([[":scheme", "http"], [":authority", "fuzz"], ...headers]),
      body: sent,
    });
    await callAll(target, tally, [
      call("a length of 4 GiB", [envelope(valid, 0, 0xffff_ffff)]),
      call("a length of 1 MiB", [envelope(valid, 0, 1_048_576)]),
      call("70 KB", [envelope(Buffer.alloc(70_000))]),
      call("a message cut off", [envelope(valid, 0, valid.length + 5)]),
      call("half a head", [Buffer.from([0, 0])]),
      call("no message", []),
      call("an empty message", [envelope(Buffer.alloc(0))]),
      call("two messages", [envelope(valid), envelope(valid)]),
      call(
        "a thousand messages",
        Array.from({ length: 1_000 }, () => envelope(valid)),
      ),
      call("a message behind half a one", [envelope(valid), envelope(valid, 0, 999)]),
      call("compressed by nothing", [envelope(valid, 1)]),
      call("an unknown flag", [envelope(valid, 0x7e)]),
      call("an unknown encoding", [envelope(valid, 1)], [["grpc-encoding", "snappy"]]),
      call("encoding without meaning", [envelope(noise(target.random, 50), 1)], [["grpc-encoding", "gzip"]]),
      ...["", "x", "-1S", "1", "1.5S", "99999999H", "0n", "9999999999S", "1S1S", " 1S"].map((timeout) =>
        call(`the timeout ${JSON.stringify(timeout)}`, sent, [["grpc-timeout", timeout]]),
      ),
      call("two keys", sent, [
        ["authorization", "Bearer lct_x"],
        ["x-api-key", "y"],
      ]),
      call("binary that is none", sent, [
        ["x-bin", "%%%"],
        ["grpc-tags-bin", "\u0001"],
      ]),
      call("a broken traceparent", sent, [
        ["traceparent", "00-zz-zz-zz"],
        ["tracestate", "=,=,="],
      ]),
      raw("no content type", [
        [":method", "POST"],
        [":path", path],
      ]),
      raw("another content type", [
        [":method", "POST"],
        [":path", path],
        ["content-type", "text/html"],
      ]),
      raw("GET", [
        [":method", "GET"],
        [":path", path],
        ["content-type", "application/grpc"],
      ]),
      raw("no path", [
        [":method", "POST"],
        [":path", "/"],
        ["content-type", "application/grpc"],
      ]),
      raw("__proto__", [
        [":method", "POST"],
        [":path", "/__proto__/constructor"],
        ["content-type", "application/grpc"],
      ]),
      raw("a long path", [
        [":method", "POST"],
        [":path", `/${"a".repeat(6_000)}`],
        ["content-type", "application/grpc"],
      ]),
      raw("an odd path", [
        [":method", "POST"],
        [":path", "/%00/../%ff?x"],
        ["content-type", "application/grpc"],
      ]),
    ]);
  },
};

const bombs: Attack = {
  name: "grpc-gzip-bombs",
  about: "64 KB that would become 64 MB, by gzip and deflate, sixty at once on each connection",
  answers: ["grpc UNIMPLEMENTED", "grpc INVALID_ARGUMENT"],
  async round(target, tally) {
    for (const encoding of ["gzip", "deflate"] as const) {
      const calls = Array.from({ length: CALLS }, () => {
        const { path } = sampleOf(target.methods, pick(target.random, ["ValidateFeature", "TrackUsageBatch"]));
        const headers = callHeaders("grpc", path, target.key, [["grpc-encoding", encoding]]);
        return { what: `${encoding} of 60 MB`, headers, body: [envelope(packed[encoding], 1)] };
      });
      await callAll(target, tally, calls);
    }
  },
};

const mutatedProtobufs: Attack = {
  name: "mutated-protobufs",
  about:
    "seeded mutations of a valid request of every method: bits, lengths, types, depth, maps, texts, numbers that no enum has",
  answers: [...refusals, ...decisions],
  async round(target, tally) {
    const chosen = Array.from({ length: CALLS }, () => {
      const sample = pick(target.random, target.methods);
      return { sample, ...mutate(sample.request(), target.random) };
    });
    const calls = chosen.map(({ sample, bytes, how }) => ({
      what: `${sample.method.name} ${how} ${bytes.subarray(0, 80).toString("hex")}`,
      headers: callHeaders("grpc", sample.path, sample.operators ? target.operatorKey : target.key, shortly),
      body: [envelope(bytes)],
    }));
    await callAll(target, tally, calls, ({ headers }, index) => {
      const sent = chosen[index];
      // What was refused must have had no effect; of the rest nobody knows, or knows that it had one.
      const status = headers.get("grpc-status");
      const refused = ["3", "5", "6", "7", "9", "12"].includes(status ?? "");
      if (sent !== undefined && !refused) remember(target, sent.sample.method, sent.bytes);
    });
  },
};

function remember(target: Target, method: DescMethod, bytes: Buffer): void {
  try {
    const message = fromBinary(method.input, bytes) as unknown as { readonly requestId?: string };
    if (message.requestId !== undefined) {
      target.accepted.add(`${method.parent.typeName}/${method.name} ${message.requestId}`);
    }
  } catch {
    // It was no message, so it can't have had an effect.
  }
}

const garbage: Attack = {
  name: "garbage-messages",
  about: "messages of noise for every method, health and reflection among them",
  answers: [...refusals, ...decisions],
  async round(target, tally) {
    const open = ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"];
    const paths = [...target.methods.map(({ path }) => path), ...open];
    const calls = Array.from({ length: CALLS }, () => {
      const path = pick(target.random, paths);
      const bytes = noise(target.random, 1 + below(target.random, 300));
      const what = `${path} ${bytes.toString("hex").slice(0, 80)}`;
      return { what, headers: callHeaders("grpc", path, target.key, shortly), body: [envelope(bytes)] };
    });
    await callAll(target, tally, calls);
  },
};

/** The attacks on the level of gRPC and protobuf. */
export const grpcAttacks: readonly Attack[] = [framing, bombs, mutatedProtobufs, garbage];
