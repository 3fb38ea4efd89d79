import { type ClientHttp2Session, connect, constants } from "node:http2";
import { setTimeout as delay } from "node:timers/promises";
import { readPolicy } from "@licet/platform/rpc/call";
import { type Attack, pick, type Sample, type Target } from "./attack.ts";
import { envelope } from "./frames.ts";
import { field, varint } from "./mutate.ts";
import { sampleOf } from "./samples.ts";
import type { Tally } from "./tally.ts";
import { request, runAll } from "./web-attacks.ts";

/** Longer than any deadline, also where the machine is busy with other things. */
const PATIENCE_MS = 120_000;
const TEN_MB = 10 * 1024 * 1024;
/** Left of what a method takes for the part of the request that is right. */
const ROOM = 1_024;

/** A message and why it is hostile. */
interface Huge {
  readonly what: string;
  readonly sample: Sample;
  readonly bytes: Buffer;
}

/** Calls on one connection that heeds the flow control of the other side, which so decides how much of a message is sent. */
async function callAll(target: Target, tally: Tally, calls: readonly Huge[]): Promise<void> {
  const session = connect(`http://127.0.0.1:${target.grpcPort}`);
  session.on("error", () => tally.note("cut"));
  try {
    await Promise.all(calls.map((call) => callOne(session, target, tally, call)));
  } finally {
    session.destroy();
  }
}

async function callOne(session: ClientHttp2Session, { key }: Target, tally: Tally, call: Huge): Promise<void> {
  tally.act();
  const headers = new Map<string, string>();
  const stream = session.request({
    ":method": "POST",
    ":path": call.sample.path,
    "content-type": "application/grpc",
    te: "trailers",
    authorization: `Bearer ${key}`,
  });
  const note = (block: object) => {
    for (const [name, value] of Object.entries(block)) headers.set(name, String(value));
  };
  stream.on("response", note);
  stream.on("trailers", note);
  stream.on("error", () => {});
  stream.resume();
  // Not `once`, which an error of the stream, an answer too, makes reject.
  const closed = new Promise<boolean>((resolve) => stream.once("close", () => resolve(true)));
  stream.end(envelope(call.bytes));
  const ended = await Promise.race([closed, delay(PATIENCE_MS, false, { ref: false })]);
  if (!ended) return tally.find(`no answer to ${call.what} in ${PATIENCE_MS} ms`);
  const reset = stream.rstCode === constants.NGHTTP2_NO_ERROR ? undefined : stream.rstCode;
  tally.noteStream({ headers, body: Buffer.alloc(0), reset, ended }, `${call.sample.method.name}: ${call.what}`);
}

/** As many copies of an entry as fit behind a request. */
function filled(start: Uint8Array, size: number, entry: (index: number) => Buffer): Buffer {
  const parts: Buffer[] = [Buffer.from(start)];
  let length = start.length;
  for (let index = 0; ; index++) {
    const next = entry(index);
    if (length + next.length > size) return Buffer.concat(parts);
    parts.push(next);
    length += next.length;
  }
}

function part(number: number, content: Buffer): Buffer {
  return Buffer.concat([field(number, 2), varint(content.length), content]);
}

/** An entry of a map of texts, with a key of its own. */
function mapEntry(number: number, index: number): Buffer {
  return part(number, Buffer.concat([part(1, Buffer.from(`k${index.toString(36)}`)), part(2, Buffer.from("1"))]));
}

/** A request of which a field that holds many is as full as its method allows: there a small message becomes many objects. */
function crowded({ methods, random }: Target): Huge {
  const fields = methods
    .filter(({ operators }) => !operators)
    .flatMap((sample) => sample.method.input.fields.map((field) => ({ sample, field })))
    .filter(({ field }) => field.fieldKind === "map" || field.fieldKind === "list");
  const { sample, field: many } = pick(random, fields);
  const size = readPolicy(sample.method).maxRequestBytes - ROOM;
  const nothing = part(many.number, Buffer.alloc(0));
  const entry = many.fieldKind === "map" ? (index: number) => mapEntry(many.number, index) : () => nothing;
  return { what: `${many.name} of ${size} bytes`, sample, bytes: filled(sample.request(), size, entry) };
}

const huge: Attack = {
  name: "huge-messages",
  about:
    "messages of 10 MB, whole, as maps, lists and texts; maps and lists of all the entries that a method's limit has room for",
  answers: [
    "grpc INVALID_ARGUMENT",
    "grpc PERMISSION_DENIED",
    "grpc OK",
    "reset ENHANCE_YOUR_CALM",
    "http 400",
    "http 413",
    "cut",
  ],
  async round(target, tally) {
    const validate = ["ValidateFeature", "TrackUsage", "TrackUsageBatch", "ProvisionLicense"];
    const sample = sampleOf(target.methods, pick(target.random, validate));
    const start = sample.request();
    const text = Buffer.alloc(TEN_MB, "a");
    const tenMb = [
      { what: "a map of 10 MB", sample, bytes: filled(start, TEN_MB, (index) => mapEntry(3, index)) },
      { what: "a list of 10 MB", sample, bytes: filled(start, TEN_MB, () => part(1, Buffer.alloc(0))) },
      { what: "a text of 10 MB", sample, bytes: Buffer.concat([start, part(1, text)]) },
      { what: "an unknown field of 10 MB", sample, bytes: Buffer.concat([start, part(1_000, text)]) },
    ];
    await callAll(target, tally, tenMb);
    // On a connection of its own: one that sends what is refused may be ended as a whole.
    await callAll(target, tally, [crowded(target)]);
    const binary = { "content-type": "application/proto" };
    const { path } = sample;
    await runAll(target, tally, [
      ...tenMb.map(({ what, bytes }) => ({ what, pieces: [request(path, target.key, bytes, binary)] })),
      { what: "JSON of 10 MB", pieces: [request(path, target.key, `{"customer_id":"${text}"}`)] },
      {
        what: "JSON with 60 KB of context",
        pieces: [request(path, target.key, `{"context":{${'"k":"1",'.repeat(7_500)}"k":"1"}}`)],
      },
    ]);
  },
};

/** The attacks by size. */
export const sizeAttacks: readonly Attack[] = [huge];
