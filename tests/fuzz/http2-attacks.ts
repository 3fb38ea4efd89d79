import { setTimeout as delay } from "node:timers/promises";
import { type Attack, below, noise, pick, type Target } from "./attack.ts";
import { envelope, flag, frame, indexedLiteral, literals, number, settings, type } from "./frames.ts";
import { openHttp2, type RawHttp2 } from "./raw-http2.ts";
import { sampleOf } from "./samples.ts";
import { errorName, type Tally } from "./tally.ts";

/** How long the answers to one round are waited for, in milliseconds. */
const PATIENCE_MS = 4_000;

/** What protects a connection may end it in any of these ways (RFC 9113, section 7), or without a word. */
export const cuts: readonly string[] = [
  "cut",
  "goaway NO_ERROR",
  "goaway PROTOCOL_ERROR",
  "goaway FLOW_CONTROL_ERROR",
  "goaway STREAM_CLOSED",
  "goaway FRAME_SIZE_ERROR",
  "goaway COMPRESSION_ERROR",
  "goaway ENHANCE_YOUR_CALM",
  "goaway INTERNAL_ERROR",
];

/** Ports that speak HTTP/2, in turn. */
function bothPorts({ grpcPort, webPort }: Target): readonly ("grpc" | "web")[] {
  return grpcPort === webPort ? ["grpc"] : ["grpc", "web"];
}

function portOf(target: Target, port: "grpc" | "web"): number {
  return port === "grpc" ? target.grpcPort : target.webPort;
}

/** The headers of a call; those of gRPC or, on the web port, of Connect with protobuf. */
export function callHeaders(
  port: "grpc" | "web",
  path: string,
  key: string | undefined,
  more: readonly (readonly [string, string])[] = [],
): Buffer {
  return literals([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "fuzz"],
    ["content-type", port === "grpc" ? "application/grpc" : "application/proto"],
    ...(port === "grpc" ? [["te", "trailers"] as const] : []),
    ...(key === undefined ? [] : [["authorization", `Bearer ${key}`] as const]),
    ...more,
  ]);
}

/** A whole call in two frames. */
function callFrames(target: Target, port: "grpc" | "web", stream: number, name: string): Buffer {
  const { path, request } = sampleOf(target.methods, name);
  const message = Buffer.from(request());
  return Buffer.concat([
    frame(type.headers, flag.endHeaders, stream, callHeaders(port, path, target.key)),
    frame(type.data, flag.endStream, stream, port === "grpc" ? envelope(message) : message),
  ]);
}

/** Counts how a connection ended, if it did. */
function noteEnd(connection: RawHttp2, tally: Tally): void {
  if (connection.goaway !== undefined) tally.note(`goaway ${errorName(connection.goaway)}`);
  else if (connection.closed) tally.note("cut");
}

/** Runs `attack` on connections to each port, several at once, and closes them. */
async function onConnections(
  target: Target,
  tally: Tally,
  count: number,
  attack: (connection: RawHttp2, port: "grpc" | "web") => Promise<void>,
  options: Parameters<typeof openHttp2>[1] = {},
): Promise<void> {
  for (const port of bothPorts(target)) {
    const opened = Array.from({ length: count }, () => openHttp2(portOf(target, port), options));
    const connections = await Promise.all(opened);
    await Promise.all(connections.map((connection) => attack(connection, port)));
    for (const connection of connections) {
      noteEnd(connection, tally);
      connection.close();
    }
  }
}

/** How long the handlers that rapid resets begin are stuck in the database at least, in milliseconds. */
const STUCK_MS = 1_500;

const rapidReset: Attack = {
  name: "rapid-reset",
  about: "whole calls that are reset in the same packet, on connection after connection, while handlers are stuck",
  answers: [...cuts, "reset REFUSED_STREAM", "reset CANCEL", "grpc OK", "http 200"],
  async round(target, tally) {
    const flood = async (): Promise<void> => {
      for (let batch = 0; batch < 6; batch++) {
        await onConnections(target, tally, 1, async (connection, port) => {
          for (let stream = 1, bursts = 0; bursts < 10; bursts++) {
            const burst: Buffer[] = [];
            for (let i = 0; i < 100; i++, stream += 2) {
              burst.push(callFrames(target, port, stream, "ListLicenses"), number(type.rstStream, stream, 8));
            }
            tally.act(100);
            if (!(await connection.send(...burst))) break;
          }
          await connection.end(100);
        });
      }
    };
    // Until the last batch is out, however long a busy machine takes for that.
    await target.stall(async () => void (await Promise.all([flood(), delay(STUCK_MS)])));
  },
};

const headerFloods: Attack = {
  name: "header-flood",
  about: "header lists of thousands of names, of 7 KB to 200 KB, bombs of one indexed header, CONTINUATION without end",
  answers: [
    ...cuts,
    "reset ENHANCE_YOUR_CALM",
    "reset INTERNAL_ERROR",
    "reset PROTOCOL_ERROR",
    "reset COMPRESSION_ERROR",
    "reset REFUSED_STREAM",
    "grpc OK",
    "grpc INVALID_ARGUMENT",
    "http 200",
    "http 400",
    "http 431",
  ],
  async round(target, tally) {
    const { path } = sampleOf(target.methods, "ValidateFeature");
    const blocks: ((port: "grpc" | "web") => Buffer)[] = [
      (port) => callHeaders(port, path, target.key, [["x-long", "a".repeat(7_000)]]),
      (port) => callHeaders(port, path, target.key, [["x-long", "a".repeat(9_000)]]),
      (port) => callHeaders(port, path, target.key, [["x-long", "a".repeat(200_000)]]),
      (port) =>
        callHeaders(
          port,
          path,
          target.key,
          Array.from({ length: 5_000 }, (_, i) => [`x-${i}`, "a"] as const),
        ),
      (port) =>
        callHeaders(
          port,
          path,
          target.key,
          Array.from({ length: 120 }, () => ["x-a", "b".repeat(60)] as const),
        ),
      // One byte each names a header of 4 KB that lies in the table: 16 KB become 64 MB.
      (port) =>
        Buffer.concat([
          callHeaders(port, path, target.key),
          indexedLiteral("x-bomb", "a".repeat(4_000)),
          Buffer.alloc(16_000, 0xbe),
        ]),
      (port) => Buffer.concat([callHeaders(port, path, target.key), noise(target.random, 200)]),
    ];
    await onConnections(target, tally, blocks.length, async (connection, port) => {
      const block = blocks[tally.acts % blocks.length]?.(port) ?? Buffer.alloc(0);
      tally.act();
      const frames = split(1, block);
      const last = frames.at(-1);
      if (last !== undefined) last[4] = flag.endHeaders;
      await connection.send(...frames, frame(type.data, flag.endStream, 1, envelope(Buffer.alloc(0))));
      for (const answer of await connection.answers([1], 1_000)) tally.noteStream(answer);
    });
    // Headers that never end, in frames of 16 KB and in frames of nothing.
    for (const piece of [Buffer.alloc(16_000, 0), literals([["x-a", "b".repeat(15_000)]]), Buffer.alloc(0)]) {
      await onConnections(target, tally, 2, async (connection, port) => {
        await connection.send(frame(type.headers, flag.none, 1, callHeaders(port, path, target.key)));
        const continuation = Buffer.concat(
          Array.from({ length: 20 }, () => frame(type.continuation, flag.none, 1, piece)),
        );
        for (let i = 0; i < 30; i++) {
          tally.act(20);
          if (!(await connection.send(continuation)) || target.signal.aborted) break;
        }
        await connection.end(500);
      });
    }
  },
};

/** A header block as one HEADERS frame and as many CONTINUATION frames as it takes. */
function split(stream: number, block: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at === 0 || at < block.length; at += 16_000) {
    const kind = at === 0 ? type.headers : type.continuation;
    frames.push(frame(kind, flag.none, stream, block.subarray(at, at + 16_000)));
  }
  return frames;
}

const controlFloods: Attack = {
  name: "control-flood",
  about: "floods of SETTINGS, PING, PRIORITY, WINDOW_UPDATE and of empty DATA frames (CVE-2019-9511 to 9518)",
  answers: [
    ...cuts,
    "grpc DEADLINE_EXCEEDED",
    "grpc UNIMPLEMENTED",
    "grpc INVALID_ARGUMENT",
    "http 400",
    "reset CANCEL",
  ],
  async round(target, tally) {
    const { path } = sampleOf(target.methods, "ValidateFeature");
    const floods: Buffer[] = [
      settings([4, 65_535], [3, 100]),
      frame(type.ping, flag.none, 0, Buffer.alloc(8)),
      frame(type.priority, flag.none, 3, Buffer.from([0, 0, 0, 1, 16])),
      number(type.windowUpdate, 0, 1),
      frame(type.data, flag.none, 1),
      frame(0x42, flag.none, 0, Buffer.alloc(20)),
    ];
    let next = 0;
    await onConnections(target, tally, floods.length, async (connection, port) => {
      const flood = floods[next++ % floods.length] ?? Buffer.alloc(0);
      await connection.send(frame(type.headers, flag.endHeaders, 1, callHeaders(port, path, target.key)));
      const many = Buffer.concat(Array.from({ length: 500 }, () => flood));
      for (let i = 0; i < 20; i++) {
        tally.act(500);
        if (!(await connection.send(many)) || target.signal.aborted) break;
      }
      await connection.end(200);
      tally.noteStream(connection.answer(1));
    });
  },
};

const brokenFrames: Attack = {
  name: "broken-frames",
  about: "random frames, lengths that lie, frames on streams that are not, bytes that are no HTTP/2, half a preface",
  answers: [
    ...cuts,
    ...["NO_ERROR", "PROTOCOL_ERROR", "STREAM_CLOSED", "FLOW_CONTROL_ERROR", "FRAME_SIZE_ERROR", "REFUSED_STREAM"].map(
      (code) => `reset ${code}`,
    ),
    "reset INTERNAL_ERROR",
    "reset CANCEL",
    "http 400",
    "http 404",
    "http 405",
    "http 415",
  ],
  async round(target, tally) {
    const { random } = target;
    await onConnections(target, tally, 20, async (connection) => {
      for (let i = 0; i < 10; i++) {
        const length = pick(random, [undefined, 0, 8, 20_000, 0xffffff]);
        const payload = noise(random, below(random, 60));
        const kind = below(random, 12);
        const stream = pick(random, [0, 1, 2, 3, 5, 0x7fff_ffff, 0x8000_0001]);
        tally.act();
        if (!(await connection.send(frame(kind, below(random, 256), stream, payload, length ?? payload.length)))) break;
      }
      await connection.end(50);
      for (const stream of [1, 3, 5]) tally.noteStream(connection.answer(stream));
    });
    const starts = [
      noise(random, 500),
      Buffer.from("PRI * HTTP/2.0\r\n"),
      Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
      Buffer.from("PR"),
      Buffer.from("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "latin1"),
      Buffer.alloc(70_000),
    ];
    let next = 0;
    await onConnections(
      target,
      tally,
      starts.length,
      async (connection) => {
        tally.act();
        await connection.send(starts[next++ % starts.length] ?? Buffer.alloc(0));
        await connection.end(100);
      },
      { bare: true },
    );
  },
};

const halfSent: Attack = {
  name: "half-sent",
  about: "calls whose message never arrives whole, a thousand on a connection, with and without a key",
  answers: [
    ...cuts,
    "grpc DEADLINE_EXCEEDED",
    "grpc UNAVAILABLE",
    "grpc CANCELLED",
    "grpc UNAUTHENTICATED",
    "http 503",
    "http 504",
    "http 401",
    "reset REFUSED_STREAM",
    "reset ENHANCE_YOUR_CALM",
    "reset CANCEL",
    "reset NO_ERROR",
  ],
  async round(target, tally) {
    await onConnections(target, tally, 2, async (connection, port) => {
      const name = pick(target.random, ["ValidateFeature", "TrackUsageBatch", "ListLicenses"]);
      const { path } = sampleOf(target.methods, name);
      const key = target.random() < 0.5 ? target.key : undefined;
      const half = envelope(Buffer.alloc(14_000), 0, 60_000);
      const streams: number[] = [];
      await connection.send(number(type.windowUpdate, 0, 1));
      for (let stream = 1; stream < 2_000; stream += 2) {
        streams.push(stream);
        tally.act();
        const headers = frame(type.headers, flag.endHeaders, stream, callHeaders(port, path, key));
        if (!(await connection.send(headers, frame(type.data, flag.none, stream, half)))) break;
      }
      for (const answer of await connection.answers(streams, PATIENCE_MS + 2_000)) tally.noteStream(answer, name);
    });
  },
};

const slowReaders: Attack = {
  name: "slow-readers",
  about: "asks for large answers and reads none: no flow-control window, or a socket that is never read",
  answers: [
    ...cuts,
    "reset REFUSED_STREAM",
    "grpc OK",
    "grpc UNAVAILABLE",
    "grpc DEADLINE_EXCEEDED",
    "http 200",
    "http 503",
    "http 404",
    "http 415",
  ],
  async round(target, tally) {
    const { path: list } = sampleOf(target.methods, "ListPlans");
    const reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    const symbol = Buffer.from("licet.licensing.v1.LicensingService");
    const ask = envelope(Buffer.concat([Buffer.from([0x22, symbol.length]), symbol]));
    const plans = Buffer.from(sampleOf(target.methods, "ListPlans").request());
    for (const window of [0, 65_535]) {
      const attack = async (connection: RawHttp2, port: "grpc" | "web") => {
        if (window > 0) connection.socket.pause();
        for (let stream = 1; stream < 200; stream += 2) {
          tally.act();
          const [path, data] =
            stream % 16 === 1 ? [reflection, ask] : [list, port === "grpc" ? envelope(plans) : plans];
          const headers = callHeaders(port, path, target.key);
          const frames = [
            frame(type.headers, flag.endHeaders, stream, headers),
            frame(type.data, flag.endStream, stream, data),
          ];
          if (!(await connection.send(...frames))) break;
        }
        await connection.end(1_000);
        for (let stream = 1; stream < 200; stream += 2) tally.noteStream(connection.answer(stream));
      };
      await onConnections(target, tally, 2, attack, { window });
    }
  },
};

const idleConnections: Attack = {
  name: "idle-connections",
  about: "a hundred connections to each port that say nothing, or open and go silent",
  answers: [...cuts],
  async round(target, tally) {
    const silence = async (connection: RawHttp2) => {
      tally.act();
      await connection.end(300);
    };
    await onConnections(target, tally, 50, silence);
    await onConnections(target, tally, 50, silence, { bare: true });
  },
};

/** The attacks on the level of HTTP/2. */
export const http2Attacks: readonly Attack[] = [
  rapidReset,
  headerFloods,
  controlFloods,
  brokenFrames,
  halfSent,
  slowReaders,
  idleConnections,
];
