// Cutting a file into rows that arrives in pieces, wherever those are cut. Everything is in bytes, so that a piece may end
// inside of a character, and a function of where it stands, so that another process can go on.

/** How rows are written: CSV by RFC 4180, or a JSON object on each line. */
export type RowFormat = "csv" | "jsonl";

/**
 * Where inside a row of CSV the reader stands: where a field begins, in a bare one, inside of quotes, or behind a quote that
 * closes them or is the first of two.
 */
export type Place = "field" | "plain" | "quoted" | "closing";

/** Where a file is to be read on. */
export interface Cursor {
  /** The line on which the next row begins, from 1. */
  readonly line: number;
  /** Inside of a row that is too long, whose rest is passed over; absent: where a row begins. */
  readonly skipping?: Place;
}

/** A row as it is in the file, without its end; `tooLong` where only that is known of it. */
export type RawRow = { readonly line: number } & ({ readonly bytes: Uint8Array } | { readonly tooLong: true });

/** What was cut out of a piece. */
export interface Cut {
  readonly rows: readonly RawRow[];
  /** How many bytes of the piece the rows and what was passed over have. */
  readonly used: number;
  readonly cursor: Cursor;
  /** Whether the piece has no further row that is complete. */
  readonly drained: boolean;
}

/** What bounds a cut, and how the file is written. */
export interface CutOptions {
  readonly format: RowFormat;
  /** Whether the file ends with the piece: what is left is a row too. */
  readonly final: boolean;
  readonly maxRows: number;
  readonly maxRowBytes: number;
}

const LF = 0x0a;
const CR = 0x0d;
const QUOTE = 0x22;
const COMMA = 0x2c;

/**
 * Cuts up to `maxRows` rows off the beginning of a piece, which begins where `cursor` stands. What follows `used` is the
 * beginning of a row: it belongs before the next piece. Empty lines count as lines and are no rows.
 */
export function cutRows(cursor: Cursor, bytes: Uint8Array, options: CutOptions): Cut {
  const { format, final, maxRows, maxRowBytes } = options;
  const rows: RawRow[] = [];
  let { line, skipping } = cursor;
  let used = 0;
  while (rows.length < maxRows && used < bytes.length) {
    const found = endOfRow(format, bytes, used, skipping ?? "field");
    const complete = found.end !== undefined || final;
    const end = found.end ?? bytes.length;
    const tooLong = end - used > maxRowBytes;
    if (!complete && !tooLong && skipping === undefined) return { rows, used, cursor: { line }, drained: true };
    if (skipping === undefined) {
      const content = withoutEnd(bytes.subarray(used, end));
      if (tooLong) rows.push({ line, tooLong: true });
      else if (content.length > 0) rows.push({ line, bytes: content });
    }
    line += found.lines;
    used = end;
    skipping = found.end === undefined ? found.place : undefined;
  }
  const next: Cursor = skipping === undefined ? { line } : { line, skipping };
  return { rows, used, cursor: next, drained: used === bytes.length };
}

/** Where the row ends (behind its line feed) that goes on at `from`, where the reader stands then, and the line feeds between. */
function endOfRow(
  format: RowFormat,
  bytes: Uint8Array,
  from: number,
  at: Place,
): { end: number | undefined; place: Place; lines: number } {
  if (format === "jsonl") {
    const feed = bytes.indexOf(LF, from);
    return feed < 0 ? { end: undefined, place: "plain", lines: 0 } : { end: feed + 1, place: "field", lines: 1 };
  }
  let place = at;
  let lines = 0;
  for (let index = from; index < bytes.length; index++) {
    const byte = bytes[index] as number;
    if (byte === LF) {
      lines++;
      if (place !== "quoted") return { end: index + 1, place: "field", lines };
    } else {
      place = placeBehind(place, byte);
    }
  }
  return { end: undefined, place, lines };
}

function placeBehind(place: Place, byte: number): Place {
  if (place === "quoted") return byte === QUOTE ? "closing" : "quoted";
  if (byte === COMMA) return "field";
  if (byte === QUOTE && place !== "plain") return "quoted";
  return "plain";
}

function withoutEnd(row: Uint8Array): Uint8Array {
  let end = row.length;
  if (row[end - 1] === LF) end--;
  if (row[end - 1] === CR) end--;
  return row.subarray(0, end);
}
