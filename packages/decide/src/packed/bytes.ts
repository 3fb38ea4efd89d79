const encoder = new TextEncoder();
// A mark at the beginning is a character like any other.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const hex: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const FIRST_BYTES = 256;

/** Whether a text is a UUID in its usual form, in lower case: {@link Writer.uuid} writes it in 16 bytes. */
export function isUuid(text: string): boolean {
  return uuidPattern.test(text);
}

/** Writes values one behind the other into a buffer that grows; `begin` starts anew. */
export class Writer {
  bytes = new Uint8Array(FIRST_BYTES);
  length = 0;
  #view = new DataView(this.bytes.buffer);

  begin(): void {
    this.length = 0;
  }

  byte(value: number): void {
    this.#reserve(1);
    this.bytes[this.length++] = value;
  }

  /** A whole number from 0 to 2^16 - 1. */
  uint16(value: number): void {
    this.#reserve(2);
    this.#view.setUint16(this.length, value);
    this.length += 2;
  }

  /** A whole number from 0 to 2^32 - 1. */
  uint32(value: number): void {
    this.#reserve(4);
    this.#view.setUint32(this.length, value);
    this.length += 4;
  }

  double(value: number): void {
    this.#reserve(8);
    this.#view.setFloat64(this.length, value);
    this.length += 8;
  }

  /** A whole number from 0 to 2^31 - 1; seven bits of it in a byte. */
  count(value: number): void {
    let rest = value;
    for (; rest > 127; rest >>>= 7) this.byte((rest & 127) | 128);
    this.byte(rest);
  }

  /** A whole number of 64 bits with a sign; those near to 0 are short. */
  int64(value: bigint): void {
    const small = value >= 0n && value < 128n;
    this.byte(small ? Number(value) : 128);
    if (small) return;
    this.#reserve(8);
    this.#view.setBigInt64(this.length, value);
    this.length += 8;
  }

  text(value: string): void {
    const bytes = encoder.encode(value);
    this.count(bytes.length);
    this.#reserve(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** A text of which {@link isUuid} holds. */
  uuid(value: string): void {
    const digits = value.replaceAll("-", "");
    for (let at = 0; at < digits.length; at += 2) this.byte(Number.parseInt(digits.slice(at, at + 2), 16));
  }

  #reserve(more: number): void {
    const needed = this.length + more;
    if (needed <= this.bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.bytes.length));
    larger.set(this.bytes.subarray(0, this.length));
    this.bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

/** Reads what a {@link Writer} wrote, value by value in the same order; `begin` says where. */
export class Reader {
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #offset = 0;

  begin(bytes: Uint8Array<ArrayBuffer>, view: DataView<ArrayBuffer>, offset: number): void {
    this.#bytes = bytes;
    this.#view = view;
    this.#offset = offset;
  }

  byte(): number {
    return this.#view.getUint8(this.#offset++);
  }

  uint16(): number {
    this.#offset += 2;
    return this.#view.getUint16(this.#offset - 2);
  }

  uint32(): number {
    this.#offset += 4;
    return this.#view.getUint32(this.#offset - 4);
  }

  double(): number {
    this.#offset += 8;
    return this.#view.getFloat64(this.#offset - 8);
  }

  count(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  }

  int64(): bigint {
    const small = this.byte();
    if (small < 128) return BigInt(small);
    this.#offset += 8;
    return this.#view.getBigInt64(this.#offset - 8);
  }

  text(): string {
    const length = this.count();
    this.#offset += length;
    return decoder.decode(this.#bytes.subarray(this.#offset - length, this.#offset));
  }

  uuid(): string {
    let text = "";
    for (let at = 0; at < 16; at++) {
      if (at === 4 || at === 6 || at === 8 || at === 10) text += "-";
      text += hex[this.byte()];
    }
    return text;
  }
}
