import { tooLarge } from "./codec.ts";
import { compressed } from "./grpc-guard.ts";

/** Before each message: a byte that says whether it is compressed, which none of ours is, and four of its length. */
export const PREFIX_BYTES = 5;

/** Cuts what arrives of a call into its messages, wherever the chunks of it begin and end. */
export class Frames {
  readonly #maxBytes: number;
  /** What no message was made of yet; it counts from `#at`. Most messages come in one chunk, so what is more has a list. */
  #first: Buffer | undefined;
  #more: Buffer[] | undefined;
  #at = 0;
  #held = 0;

  /** Takes messages of so many bytes. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** How many bytes have arrived behind the last message that was taken. */
  get held(): number {
    return this.#held;
  }

  add(chunk: Buffer): void {
    if (this.#first === undefined) this.#first = chunk;
    else {
      this.#more ??= [];
      this.#more.push(chunk);
    }
    this.#held += chunk.length;
  }

  /**
   * The next message; undefined while it has not arrived whole. What it is too much for is said as soon as its prefix is here.
   *
   * @throws {ServiceError} MESSAGE_TOO_LARGE, or MALFORMED_MESSAGE for one that is compressed.
   */
  next(): Buffer | undefined {
    const first = this.#first;
    if (first === undefined || this.#held < PREFIX_BYTES) return undefined;
    const head = this.#joined(first, PREFIX_BYTES);
    if (head[this.#at] !== 0) throw compressed();
    const size = head.readUInt32BE(this.#at + 1);
    if (size > this.#maxBytes) throw tooLarge(this.#maxBytes);
    const whole = PREFIX_BYTES + size;
    if (this.#held < whole) return undefined;
    const bytes = this.#joined(head, whole);
    const begin = this.#at + PREFIX_BYTES;
    this.#at += whole;
    this.#held -= whole;
    if (this.#at === bytes.length) {
      this.#first = this.#more?.shift();
      this.#at = 0;
    }
    return bytes.subarray(begin, begin + size);
  }

  /** The first chunk, which has so many bytes, or is made to have them. */
  #joined(first: Buffer, length: number): Buffer {
    if (first.length - this.#at >= length) return first;
    const all = Buffer.concat([first, ...(this.#more ?? [])]).subarray(this.#at);
    this.#first = all;
    this.#more = undefined;
    this.#at = 0;
    return all;
  }
}

/** Messages as they go over the wire, one behind the other. */
export function toFrames(messages: readonly Uint8Array[]): Buffer {
  let size = 0;
  for (const { length } of messages) size += PREFIX_BYTES + length;
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  for (const message of messages) {
    bytes[at] = 0;
    bytes.writeUInt32BE(message.length, at + 1);
    bytes.set(message, at + PREFIX_BYTES);
    at += PREFIX_BYTES + message.length;
  }
  return bytes;
}
