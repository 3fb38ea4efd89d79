/**
 * Reads header blocks (RFC 7541) of a server that was told to keep no dynamic table: static names, literals, Huffman
 * codes.
 */

/** The static table, from index 1 (RFC 7541, appendix A). */
const staticTable = `
:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|:status 206
:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges
accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding
content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host
if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards
proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|strict-transport-security
transfer-encoding|user-agent|vary|via|www-authenticate`
  .trim()
  .split(/[|\n]/)
  .map((entry): readonly [string, string] => {
    const space = entry.indexOf(" ");
    return space < 0 ? [entry, ""] : [entry.slice(0, space), entry.slice(space + 1)];
  });

/** How many bits the code of each byte has (appendix B). The code is canonical: its words follow from their lengths. */
const codeLengths = `
13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28
6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10
13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6
15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28
20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24
22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23
26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27
20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26 30`
  .trim()
  .split(/\s+/)
  .map(Number);

/** Bytes by `length:word` of their code. */
const codes = new Map<string, number>();
{
  const order = codeLengths.map((length, byte) => ({ length, byte })).sort((a, b) => a.length - b.length);
  let word = 0;
  let last = order[0]?.length ?? 0;
  for (const { length, byte } of order) {
    word *= 2 ** (length - last);
    last = length;
    codes.set(`${length}:${word}`, byte);
    word += 1;
  }
}

/** The headers of a block, names in lower case; the last value of each. */
export function readHeaderBlock(block: Buffer): Map<string, string> {
  const headers = new Map<string, string>();
  const at = { offset: 0 };
  while (at.offset < block.length) {
    const first = block[at.offset] ?? 0;
    if (first >= 0x80) {
      const [name, value] = entry(readInteger(block, at, 7));
      headers.set(name, value);
    } else if (first >= 0x20 && first < 0x40) {
      readInteger(block, at, 5);
    } else {
      const index = readInteger(block, at, first >= 0x40 ? 6 : 4);
      const name = index === 0 ? readText(block, at) : entry(index)[0];
      headers.set(name, readText(block, at));
    }
  }
  return headers;
}

function entry(index: number): readonly [string, string] {
  const found = staticTable[index - 1];
  if (found === undefined) throw new Error(`HPACK: there is no entry ${index} without a dynamic table`);
  return found;
}

interface Place {
  offset: number;
}

function readInteger(block: Buffer, at: Place, prefix: number): number {
  const limit = 2 ** prefix - 1;
  let value = (block[at.offset++] ?? 0) & limit;
  if (value < limit) return value;
  for (let factor = 1; ; factor *= 128) {
    const byte = block[at.offset++] ?? 0;
    value += (byte & 127) * factor;
    if (byte < 128) return value;
  }
}

function readText(block: Buffer, at: Place): string {
  const huffman = (block[at.offset] ?? 0) >= 0x80;
  const length = readInteger(block, at, 7);
  const bytes = block.subarray(at.offset, at.offset + length);
  at.offset += length;
  return huffman ? decode(bytes) : bytes.toString("latin1");
}

function decode(bytes: Buffer): string {
  const out: number[] = [];
  let word = 0;
  let length = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      word = word * 2 + ((byte >> bit) & 1);
      length += 1;
      const found = codes.get(`${length}:${word}`);
      if (found === undefined) continue;
      out.push(found);
      word = 0;
      length = 0;
    }
  }
  return Buffer.from(out).toString("latin1");
}
