import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { guarded, unguarded } from "./formula.ts";
import { type Cursor, type CutOptions, cutRows, type RawRow, type RowFormat } from "./rows.ts";

const MAX_ROW_BYTES = 40;

/** Reads a file in pieces as an import does: what a cut leaves goes before the next piece. */
function read(format: RowFormat, pieces: readonly Uint8Array[], maxRows: number): { rows: string[]; cursor: Cursor } {
  const rows: string[] = [];
  let cursor: Cursor = { line: 1 };
  let rest: Uint8Array = new Uint8Array();
  pieces.forEach((piece, index) => {
    let bytes: Uint8Array = Buffer.concat([rest, piece]);
    const final = index === pieces.length - 1;
    const options: CutOptions = { format, final, maxRows, maxRowBytes: MAX_ROW_BYTES };
    for (let drained = false; !drained; ) {
      const cut = cutRows(cursor, bytes, options);
      rows.push(...cut.rows.map(show));
      ({ cursor, drained } = cut);
      bytes = bytes.subarray(cut.used);
    }
    expect(bytes.length).toBeLessThanOrEqual(MAX_ROW_BYTES);
    rest = bytes;
  });
  expect(rest).toHaveLength(0);
  return { rows, cursor };
}

const show = (row: RawRow) => `${row.line} ${"bytes" in row ? JSON.stringify(Buffer.from(row.bytes).toString()) : "!"}`;
const whole = (format: RowFormat, text: string) => read(format, [Buffer.from(text)], 1_000).rows;

describe("cutRows", () => {
  test.each<[string, RowFormat, string, string[]]>([
    ["line feeds", "csv", "a,b\nc,d\n", ['1 "a,b"', '2 "c,d"']],
    ["carriage returns, no end", "csv", "a,b\r\nc,d", ['1 "a,b"', '2 "c,d"']],
    ["quoted line feeds count as lines", "csv", 'a,"b\r\n""c"\nd\n', [String.raw`1 "a,\"b\r\n\"\"c\""`, '3 "d"']],
    ["a quote inside a bare field opens nothing", "csv", 'a"b\nc\n', [String.raw`1 "a\"b"`, '2 "c"']],
    ["a quote behind the closing one opens again", "csv", '"a"" \n"\nb\n', [String.raw`1 "\"a\"\" \n\""`, '3 "b"']],
    ["empty lines are no rows", "csv", "\n\r\na\n\n", ['3 "a"']],
    ["too long a row", "csv", `a\n${"x".repeat(60)}\nb\n`, ['1 "a"', "2 !", '3 "b"']],
    ["too long inside of quotes", "csv", `"${"x\n".repeat(30)}",y\nb\n`, ["1 !", '32 "b"']],
    ["a quote that is never closed", "csv", `a\n"b\n${"c\n".repeat(30)}`, ['1 "a"', "2 !"]],
    ["JSON knows no quoted line feed", "jsonl", '{"a":"\n"}\n', [String.raw`1 "{\"a\":\""`, String.raw`2 "\"}"`]],
    ["nothing", "csv", "", []],
  ])("%s", (_name, format, text, rows) => {
    expect(whole(format, text)).toEqual(rows);
  });

  const texts = fc
    .array(fc.constantFrom("a", "é", "𝄞", '"', '""', ",", "\n", "\r\n", "\r", "x".repeat(25)), { maxLength: 40 })
    .map((parts) => parts.join(""));

  test("cut at any bytes, in any batches, it is the same", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<RowFormat>("csv", "jsonl"),
        texts,
        fc.array(fc.nat()),
        fc.integer({ min: 1, max: 5 }),
        (format, text, cuts, maxRows) => {
          const bytes = Buffer.from(text);
          const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
          const pieces = places.slice(1).map((end, index) => bytes.subarray(places[index], end));
          const expected = read(format, [bytes], 1_000);
          expect(read(format, pieces, maxRows)).toEqual(expected);
          const single = [...bytes].map((byte) => Buffer.of(byte));
          expect(read(format, [...single, Buffer.alloc(0)], maxRows)).toEqual(expected);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("guarded", () => {
  test.each(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])("%j can't be taken for a formula", (text) => {
    expect(guarded(text)).toBe(`'${text}`);
  });

  test("comes back", () => {
    const characters = fc.constantFrom("'", "=", "+", "-", "@", "\t", "\r", "a", "");
    const texts = fc.array(characters, { maxLength: 6 }).map((parts) => parts.join(""));
    fc.assert(
      fc.property(texts, (text) => {
        expect(unguarded(guarded(text))).toBe(text);
        expect(guarded(text)).not.toMatch(/^[=+\-@\t\r]/);
      }),
    );
  });

  test("names of foreign files stay as they are", () => {
    expect(unguarded("'s-Hertogenbosch")).toBe("'s-Hertogenbosch");
  });
});
