import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { type Attack, below, noise, pick, type Target } from "./attack.ts";
import { envelope } from "./frames.ts";
import { sampleOf } from "./samples.ts";
import type { Tally } from "./tally.ts";

/** Longer than any deadline, also where the machine is busy with other things. */
const PATIENCE_MS = 120_000;

/** 58 KB that become 60 MB. */
const bomb = gzipSync(Buffer.alloc(60_000_000));

/** Nothing more is expected of a connection that has answered and then been silent for so long, in milliseconds. */
const SILENCE_MS = 400;

/** What one connection sends, piece by piece. */
export interface Script {
  readonly what: string;
  readonly pieces: readonly (string | Buffer)[];
  /** Whether a second answer would mean that a request was smuggled in. */
  readonly once?: boolean;
  /** Pause between the pieces, in milliseconds. */
  readonly pauseMs?: number;
  /** How long to wait for the end of the connection. */
  readonly waitMs?: number;
}

/** Sends a script over a connection of its own; the status of each answer, and the text of them all. */
async function send(port: number, { pieces, pauseMs = 0, waitMs = PATIENCE_MS }: Script) {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  const chunks: Buffer[] = [];
  let closed = false;
  let size = 0;
  let heardAt = Number.POSITIVE_INFINITY;
  socket.on("error", () => {});
  socket.on("close", () => {
    closed = true;
  });
  socket.on("data", (chunk: Buffer) => {
    size += chunk.length;
    heardAt = performance.now();
    if (size < 1_000_000) chunks.push(chunk);
  });
  await Promise.race([once(socket, "connect"), once(socket, "close")]);
  for (const piece of pieces) {
    if (closed) break;
    if (!socket.write(piece) && socket.writableLength > 4_000_000)
      // Where it is cut, what has been answered is still to be read.
      await Promise.race([once(socket, "drain").catch(() => {}), delay(500)]);
    if (pauseMs > 0) await delay(pauseMs);
  }
  const giveUpAt = performance.now() + waitMs;
  while (!closed && performance.now() < giveUpAt && performance.now() < heardAt + SILENCE_MS) await delay(5);
  socket.destroy();
  const text = Buffer.concat(chunks).toString("latin1");
  return { statuses: [...text.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(([, code]) => Number(code)), text, closed };
}

/** Runs scripts, several at once, and counts each answer. */
export async function runAll(target: Target, tally: Tally, scripts: readonly Script[]): Promise<void> {
  await Promise.all(
    scripts.map(async (script) => {
      tally.act();
      const { statuses, text } = await send(target.webPort, script);
      if (statuses.length === 0) tally.note("cut");
      if (script.once && statuses.length > 1) tally.find(`${script.what} was answered ${statuses.length} times`);
      for (const status of statuses) tally.note(`http ${status}`, script.what, text);
      const grpc = /grpc-status: (\d+)/.exec(text)?.[1];
      if (grpc === "13" || grpc === "2") tally.find(`gRPC-Web answers status ${grpc} to ${script.what}: ${text}`);
    }),
  );
}

/** A whole request that ends its connection. */
export function request(
  path: string,
  key: string | undefined,
  body: string | Buffer,
  headers: Readonly<Record<string, string>> = {},
): Buffer {
  const bytes = Buffer.from(body);
  const all = {
    host: "fuzz",
    connection: "close",
    "content-type": "application/json",
    "content-length": `${bytes.length}`,
    ...(key !== undefined && { authorization: `Bearer ${key}` }),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n`, "latin1"), bytes]);
}

const json: Attack = {
  name: "hostile-json",
  about:
    "Connect JSON: depth, `__proto__` and `constructor`, doubled keys, huge numbers, bad UTF-8, a BOM, wrong types",
  answers: ["http 200", "http 400", "http 404", "http 409"],
  async round(target, tally) {
    const { random } = target;
    const name = pick(random, ["ValidateFeature", "TrackUsage", "ProvisionLicense", "ListLicenses", "CreateCustomer"]);
    const { path } = sampleOf(target.methods, name);
    const deep = (open: string, close: string, depth: number) => `${open.repeat(depth)}1${close.repeat(depth)}`;
    const bodies: (string | Buffer)[] = [
      deep("[", "]", 30_000),
      deep('{"a":', "}", 10_000),
      `{"context":${deep('{"a":', "}", 9_000)}}`,
      `{"customer_id":${deep("[", "]", 20_000)}}`,
      '{"__proto__":{"polluted":true}}',
      '{"constructor":{"prototype":{"polluted":true}}}',
      '{"context":{"__proto__":"x","constructor":"y","toString":"z","hasOwnProperty":"w"},"customer_id":"c","feature":"f"}',
      '{"event":{"dimensions":{"__proto__":"x","constructor":"y"},"id":"i","customer_id":"","metric":"m"}}',
      '{"customer_id":"a","customer_id":"b","feature":"f","feature":""}',
      '{"customer_id":"a","customerId":"b"}',
      `{"page_size":1e400}`,
      `{"page_size":${"9".repeat(5_000)}}`,
      `{"consume":{"m":-0.0}}`,
      '{"page_size":1.0000000001}',
      '{"granularity":"USAGE_GRANULARITY_OF_NOBODY","role":"API_KEY_ROLE_OF_NOBODY"}',
      '{"granularity":99,"billing_cycle":-1,"terms":{"type":2147483648}}',
      Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]),
      Buffer.from('\uFEFF{"customer_id":""}'),
      '{"customer_id":"\\ud800"}',
      '{"customer_id":"\\u0000","name":"\\u0000"}',
      "null",
      "[]",
      '"x"',
      "1",
      "",
      " ".repeat(60_000),
      "{".repeat(60_000),
      '{"occurred_at":"9999999-01-01T00:00:00Z"}',
      '{"valid_until":"-1"}',
      `{"customer_id":"${"a".repeat(60_000)}"}`,
      `{${Array.from({ length: 3_000 }, (_, i) => `"k${i}":1`).join(",")}}`,
      `{"context":{${Array.from({ length: 3_000 }, (_, i) => `"k${i}":""`).join(",")}}}`,
      noise(random, below(random, 2_000)),
    ];
    await runAll(
      target,
      tally,
      bodies.map((body) => ({
        what: `${name} ${body.toString().slice(0, 60)}`,
        pieces: [request(path, target.key, body)],
      })),
    );
  },
};

const http1: Attack = {
  name: "http1",
  about:
    "slow headers and bodies, smuggled requests, oversize headers and chunks, pipelines that are not read, odd methods",
  answers: [
    "cut",
    "http 100",
    "http 200",
    "http 400",
    "http 401",
    "http 404",
    "http 405",
    "http 408",
    "http 413",
    "http 415",
    "http 417",
    "http 431",
    "http 503",
    "http 504",
  ],
  async round(target, tally) {
    const { path } = sampleOf(target.methods, "ValidateFeature");
    const start = `POST ${path} HTTP/1.1\r\nhost: fuzz\r\nauthorization: Bearer ${target.key}\r\n`;
    const typed = `${start}content-type: application/json\r\n`;
    const smuggled = `POST ${path} HTTP/1.1\r\nhost: smuggled\r\ncontent-length: 2\r\n\r\n{}`;
    const scripts: Script[] = [
      { what: "slow headers", pieces: Array.from(start), pauseMs: 20, waitMs: 500 },
      { what: "a slow body", pieces: [`${typed}content-length: 100\r\n\r\n`, ..."{".repeat(20)], pauseMs: 100 },
      { what: "a body that never comes", pieces: [`${typed}content-length: 60000\r\n\r\n`] },
      {
        what: "length and chunks",
        once: true,
        pieces: [`${typed}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`],
      },
      {
        what: "two lengths",
        once: true,
        pieces: [`${typed}content-length: 2\r\ncontent-length: 50\r\n\r\n{}${smuggled}`],
      },
      {
        what: "chunks in disguise",
        once: true,
        pieces: [`${typed}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`],
      },
      { what: "chunks twice", pieces: [`${typed}transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n`] },
      { what: "a space before the colon", pieces: [`${typed}content-length : 2\r\n\r\n{}`] },
      { what: "bare line feeds", pieces: [`${typed.replaceAll("\r\n", "\n")}content-length: 2\n\n{}`] },
      { what: "a folded header", pieces: [`${typed}x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}`] },
      { what: "a negative length", pieces: [`${typed}content-length: -1\r\n\r\n`] },
      { what: "a huge chunk", pieces: [`${typed}transfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n`] },
      {
        what: "a long chunk extension",
        pieces: [`${typed}transfer-encoding: chunked\r\n\r\n1;${"a".repeat(100_000)}\r\n`],
      },
      {
        what: "chunks without end",
        pieces: [
          `${typed}transfer-encoding: chunked\r\n\r\n`,
          ...Array.from({ length: 200 }, () => `4000\r\n${"a".repeat(16_384)}\r\n`),
        ],
      },
      {
        what: "chunks of one byte",
        pieces: [
          `${typed}transfer-encoding: chunked\r\n\r\n`,
          ...Array.from({ length: 50 }, () => "1\r\na\r\n".repeat(1_000)),
        ],
      },
      { what: "a header of 9 KB", pieces: [`${typed}x-long: ${"a".repeat(9_000)}\r\n\r\n`] },
      { what: "headers without end", pieces: [typed, ...Array.from({ length: 100 }, () => "x: y\r\n".repeat(200))] },
      { what: "a URL of 20 KB", pieces: [`GET /${"a".repeat(20_000)} HTTP/1.1\r\nhost: fuzz\r\n\r\n`] },
      { what: "an unknown method", pieces: ["FUZZ / HTTP/1.1\r\nhost: fuzz\r\n\r\n"] },
      { what: "CONNECT", pieces: ["CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n"] },
      {
        what: "an upgrade",
        pieces: [
          `GET / HTTP/1.1\r\nhost: fuzz\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n`,
        ],
        waitMs: 300,
      },
      {
        what: "a web socket",
        pieces: [`GET / HTTP/1.1\r\nhost: fuzz\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n`],
        waitMs: 300,
      },
      { what: "no host", pieces: [`POST ${path} HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}`] },
      {
        what: "a broken host",
        pieces: [`POST ${path} HTTP/1.1\r\nhost: [::\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}`],
      },
      {
        what: "a target elsewhere",
        pieces: ["POST http://example.com/ HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"],
      },
      { what: "HTTP/0.9", pieces: ["GET /\r\n\r\n"] },
      { what: "HTTP/3", pieces: ["GET / HTTP/3.0\r\n\r\n"] },
      {
        what: "an expectation",
        pieces: [`${typed}expect: 200-maybe\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}`],
      },
      {
        what: "to be continued",
        pieces: [`${typed}expect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n`, "{}"],
      },
      { what: "noise", pieces: [noise(target.random, 4_000)] },
      { what: "nothing", pieces: [], waitMs: 300 },
      { what: "NUL in a header", pieces: [`${typed}x-a: b\0c\r\ncontent-length: 2\r\n\r\n{}`] },
      {
        what: "a pipeline",
        pieces: Array.from({ length: 300 }, () => "GET /health HTTP/1.1\r\nhost: fuzz\r\n\r\n"),
        waitMs: 300,
      },
    ];
    await runAll(target, tally, scripts);
    await Promise.all(Array.from({ length: 2 }, () => unreadPipeline(target, tally)));
  },
};

/** Asks and asks and never reads: the answers must not pile up in the victim. */
async function unreadPipeline(target: Target, tally: Tally): Promise<void> {
  const socket = connect({ port: target.webPort, host: "127.0.0.1" });
  socket.on("error", () => {});
  await Promise.race([once(socket, "connect"), once(socket, "close")]);
  socket.pause();
  const { path, request: sample } = sampleOf(target.methods, "ListPlans");
  const ask = request(path, target.key, Buffer.from(sample()), {
    connection: "keep-alive",
    "content-type": "application/proto",
  });
  for (let i = 0; i < 5 && socket.writableLength < 2_000_000 && !socket.destroyed; i++) {
    tally.act(100);
    socket.write(Buffer.concat(Array.from({ length: 100 }, () => ask)));
    await delay(20);
  }
  await delay(500);
  socket.destroy();
}

const envelopes: Attack = {
  name: "web-envelopes",
  about: "gRPC-Web and Connect streams with broken envelopes; compressed bodies and bombs of 60 MB",
  answers: ["http 200", "http 400", "http 404", "http 415", "http 501", "http 504", "cut"],
  async round(target, tally) {
    const { random, key } = target;
    const { path, request: sample } = sampleOf(
      target.methods,
      pick(random, ["ValidateFeature", "StreamEntitlementSnapshots"]),
    );
    const valid = Buffer.from(sample());
    const bodies = [
      envelope(valid, 0, 0xffff_ffff),
      envelope(valid, 0, valid.length + 9),
      envelope(valid, 0x80),
      envelope(valid, 0xff),
      envelope(bomb, 1),
      Buffer.concat([envelope(valid), envelope(valid)]),
      Buffer.concat(Array.from({ length: 5_000 }, () => envelope(Buffer.alloc(0)))),
      Buffer.alloc(0),
      Buffer.from([0, 0]),
      noise(random, 300),
      envelope(noise(random, 40)),
      envelope(Buffer.alloc(70_000)),
    ];
    const types = [
      "application/grpc-web+proto",
      "application/grpc-web+json",
      "application/grpc-web-text",
      "application/connect+proto",
      "application/connect+json",
    ];
    const compressed = (type: string) => ({
      "content-type": type,
      "connect-content-encoding": "gzip",
      "grpc-encoding": "gzip",
    });
    const scripts = bodies.flatMap((body) => {
      const type = pick(random, types);
      return [
        {
          what: `${type} ${body.subarray(0, 20).toString("hex")}`,
          pieces: [request(path, key, body, { "content-type": type })],
        },
        { what: `gzip in ${type}`, pieces: [request(path, key, body, compressed(type))] },
      ];
    });
    const encodings = ["gzip", "br", "deflate", "gzip, gzip", "", "identity"].map((encoding) => ({
      what: `content-encoding ${encoding}`,
      pieces: [request(path, key, bomb, { "content-encoding": encoding })],
    }));
    await runAll(target, tally, [...scripts, ...encodings]);
  },
};

/** The attacks on the web port. */
export const webAttacks: readonly Attack[] = [json, http1, envelopes];
