import type { Heartbeat } from "../watch/telling.ts";
import { varintSize, writeVarint } from "./varint.ts";

/** The tags of what is written, by field. */
const RESUME_TOKEN = 0x0a;
const contentTags = { synchronized: 0x2a, heartbeat: 0x32 } as const;
const SENT_AT_OF_STREAM = 0x42;
const FACTS_AS_OF = 0x0a;
const SENT_AT = 0x12;
const USAGE_AS_OF = 0x1a;
const SECONDS = 0x08;
const NANOS = 0x10;

/** A token and each message are shorter, so that their lengths are one byte. */
const MAX_LENGTH = 0x7f;

/**
 * The bytes of a WatchEntitlementsResponse with a heartbeat, as the generated code writes them. Most watches get one each
 * second and nothing else, and ten thousand of them may be open: what each one leaves for the collection of garbage is what
 * other callers wait for.
 *
 * @param streamSentAtMs `sent_at` of the first message of a stream, in whole epoch milliseconds.
 */
export function encodeHeartbeat(
  { kind, resumeToken, beat: { factsAsOfMs, sentAtMs, usageAsOfMs } }: Heartbeat,
  streamSentAtMs: number | undefined,
): Buffer {
  if (resumeToken.length > MAX_LENGTH) throw new RangeError(`a token of ${resumeToken.length} characters`);
  const beatSize = fieldSize(factsAsOfMs) + fieldSize(sentAtMs) + fieldSize(usageAsOfMs);
  const tokenSize = resumeToken === "" ? 0 : 2 + resumeToken.length;
  const bytes = Buffer.allocUnsafe(tokenSize + 2 + beatSize + fieldSize(streamSentAtMs));
  let at = 0;
  if (resumeToken !== "") {
    at = writeHead(RESUME_TOKEN, resumeToken.length, bytes, at);
    at += bytes.write(resumeToken, at, "latin1");
  }
  at = writeHead(contentTags[kind], beatSize, bytes, at);
  at = writeTime(FACTS_AS_OF, factsAsOfMs, bytes, at);
  at = writeTime(SENT_AT, sentAtMs, bytes, at);
  at = writeTime(USAGE_AS_OF, usageAsOfMs, bytes, at);
  writeTime(SENT_AT_OF_STREAM, streamSentAtMs, bytes, at);
  return bytes;
}

/** How many bytes a field has that is a Timestamp; none where there is none. */
function fieldSize(ms: number | undefined): number {
  return ms === undefined ? 0 : 2 + timeSize(ms);
}

function timeSize(ms: number): number {
  return numberSize(secondsOf(ms)) + numberSize(nanosOf(ms));
}

function numberSize(value: number): number {
  return value === 0 ? 0 : 1 + varintSize(value);
}

function writeTime(tag: number, ms: number | undefined, target: Buffer, at: number): number {
  if (ms === undefined) return at;
  const end = writeNumber(SECONDS, secondsOf(ms), target, writeHead(tag, timeSize(ms), target, at));
  return writeNumber(NANOS, nanosOf(ms), target, end);
}

/** A field at its default is not written. */
function writeNumber(tag: number, value: number, target: Buffer, at: number): number {
  if (value === 0) return at;
  target[at] = tag;
  return writeVarint(value, target, at + 1);
}

function writeHead(tag: number, length: number, target: Buffer, at: number): number {
  target[at] = tag;
  target[at + 1] = length;
  return at + 2;
}

function secondsOf(ms: number): number {
  return Math.floor(ms / 1_000);
}

function nanosOf(ms: number): number {
  return (ms % 1_000) * 1_000_000;
}
