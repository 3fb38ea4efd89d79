import type { Facts } from "@licet/decide/decide";
import type { UsageLevels } from "@licet/decide/entitlement";
import type { Counts } from "../metrics.ts";
import { varintSize, writeVarint } from "./varint.ts";

/**
 * A reply that is encoded but for the ages of its facts, which are others each time. Fields may come in any order, so
 * they go behind the rest.
 */
export interface Reply {
  /** The encoded message without its ages, a character a byte: texts are smaller than buffers. */
  readonly encoded: string;
  /** Whole milliseconds. */
  readonly stalenessMs: number;
  /** Of usage, in whole milliseconds; undefined: no limit was compared with any. */
  readonly usageStalenessMs: number | undefined;
}

/** A reply that was worked out before, and how long it holds. */
export interface Prepared {
  readonly encoded: string;
  readonly counts: Counts;
  /** The entitlement version that it was decided on. */
  readonly version: bigint;
  /** The facts that it was decided on; they count by identity, and each change makes others. */
  readonly catalogs: Facts["catalogs"];
  readonly levels: UsageLevels | undefined;
  readonly comparedUsage: boolean;
  /** When it was decided, and until when the clock alone does not change it (excluded), in epoch milliseconds. */
  readonly fromMs: number;
  readonly untilMs: number;
}

/** Whether the same question has the same answer now. A clock that was set back makes it decided anew as well. */
export function holds(prepared: Prepared, version: bigint, { catalogs, usage }: Facts, nowMs: number): boolean {
  return (
    prepared.version === version &&
    prepared.catalogs === catalogs &&
    prepared.levels === usage?.levels &&
    nowMs < prepared.untilMs &&
    nowMs >= prepared.fromMs
  );
}

/** What a prepared reply takes up beside its texts, in bytes, about. */
const OVERHEAD_BYTES = 250;

/** What a prepared reply weighs in a memo. */
export function weightOf(key: string, { encoded }: Prepared): number {
  return key.length + encoded.length + OVERHEAD_BYTES;
}

/** The tags of `staleness_ms` (9) and `usage_staleness_ms` (13), the same in both responses: varints. */
const STALENESS = 0x48;
const USAGE_STALENESS = 0x68;

/** How many bytes a reply has. */
function sizeOf({ encoded, stalenessMs, usageStalenessMs }: Reply): number {
  const own = stalenessMs === 0 ? 0 : 1 + varintSize(stalenessMs);
  return encoded.length + own + (usageStalenessMs === undefined ? 0 : 1 + varintSize(usageStalenessMs));
}

/** Writes a reply; returns where it ends. */
function writeReply({ encoded, stalenessMs, usageStalenessMs }: Reply, target: Buffer, at: number): number {
  let end = at + target.write(encoded, at, "latin1");
  // A field at its default is not written, but for one that may be absent.
  if (stalenessMs !== 0) {
    target[end] = STALENESS;
    end = writeVarint(stalenessMs, target, end + 1);
  }
  if (usageStalenessMs !== undefined) {
    target[end] = USAGE_STALENESS;
    end = writeVarint(usageStalenessMs, target, end + 1);
  }
  return end;
}

/** The bytes of a reply. */
export function toBytes(reply: Reply): Buffer {
  const bytes = Buffer.allocUnsafe(sizeOf(reply));
  writeReply(reply, bytes, 0);
  return bytes;
}

/** An answer among many: a reply, or an encoded `Answer` where it is not one that was prepared. */
export type Piece = Reply | Uint8Array;

/** The tag of `Answer.response`, and that of `answers` in the responses that have many. */
const FIRST_FIELD = 0x0a;

/** The bytes of a BatchValidateResponse or ValidateStreamResponse; the two are written alike. */
export function toAnswers(pieces: readonly Piece[]): Buffer {
  let size = 0;
  for (const piece of pieces) size += fieldSize(answerSize(piece));
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  for (const piece of pieces) {
    at = writeHead(answerSize(piece), bytes, at);
    if (piece instanceof Uint8Array) {
      bytes.set(piece, at);
      at += piece.length;
    } else at = writeReply(piece, bytes, writeHead(sizeOf(piece), bytes, at));
  }
  return bytes;
}

function answerSize(piece: Piece): number {
  return piece instanceof Uint8Array ? piece.length : fieldSize(sizeOf(piece));
}

function fieldSize(length: number): number {
  return 1 + varintSize(length) + length;
}

function writeHead(length: number, target: Buffer, at: number): number {
  target[at] = FIRST_FIELD;
  return writeVarint(length, target, at + 1);
}
