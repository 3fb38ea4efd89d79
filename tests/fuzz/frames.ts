import type { Socket } from "node:net";

/** HTTP/2 on the wire (RFC 9113), as little of it as an attacker needs: frames are bytes, and nothing keeps the rules. */

/** What a client says first. */
export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** Types of frames. */
export const type = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

/** Flags of frames. */
export const flag = { none: 0, endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

/** Parameters of SETTINGS. */
export const setting = { headerTableSize: 1, maxConcurrentStreams: 3, initialWindowSize: 4 } as const;

const nothing: Buffer = Buffer.alloc(0);

/** One frame. `length` lies about the payload where given. */
export function frame(kind: number, flags: number, stream: number, payload = nothing, length = payload.length): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(length, 0, 3);
  head[3] = kind;
  head[4] = flags;
  head.writeUInt32BE(stream >>> 0, 5);
  return Buffer.concat([head, payload]);
}

/** A SETTINGS frame of pairs of parameter and value. */
export function settings(...pairs: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(pairs.length * 6);
  pairs.forEach(([id, value], index) => {
    payload.writeUInt16BE(id, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  });
  return frame(type.settings, flag.none, 0, payload);
}

/** A frame whose payload is one 32-bit number: RST_STREAM, WINDOW_UPDATE. */
export function number(kind: number, stream: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(value >>> 0);
  return frame(kind, flag.none, stream, payload);
}

/** A header list as HPACK literals: no index, no table, no Huffman code. */
export function literals(headers: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    headers.flatMap(([name, value]) => [Buffer.from([0]), text(Buffer.from(name)), text(Buffer.from(value))]),
  );
}

/** A header as an HPACK literal that goes into the dynamic table, from which index 62 then names it. */
export function indexedLiteral(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0x40]), text(Buffer.from(name)), text(Buffer.from(value))]);
}

function text(bytes: Buffer): Buffer {
  return Buffer.concat([integer(bytes.length, 7), bytes]);
}

/** An HPACK integer with a prefix of so many bits, the bits before it 0. */
function integer(value: number, prefix: number): Buffer {
  const limit = 2 ** prefix - 1;
  if (value < limit) return Buffer.from([value]);
  const bytes = [limit];
  let rest = value - limit;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

/** A message of gRPC, gRPC-Web or a Connect stream: flags, length, bytes. `length` lies where given. */
export function envelope(message: Uint8Array, flags = 0, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(length >>> 0, 1);
  return Buffer.concat([head, message]);
}

/** Calls `onFrame` for each frame that arrives; nothing is kept but the part of one that has not arrived. */
export function splitFrames(
  socket: Socket,
  onFrame: (kind: number, flags: number, stream: number, payload: Buffer) => void,
): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (rest.length - at >= 9) {
      const end = at + 9 + rest.readUIntBE(at, 3);
      if (end > rest.length) break;
      onFrame(
        rest[at + 3] ?? 0,
        rest[at + 4] ?? 0,
        rest.readUInt32BE(at + 5) & 0x7fff_ffff,
        rest.subarray(at + 9, end),
      );
      at = end;
    }
    rest = rest.subarray(at);
  });
}
