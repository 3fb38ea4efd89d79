import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { ServiceError } from "../errors.ts";
import { PREFIX_BYTES, toFrames } from "./grpc-frames.ts";
import { toGrpcStatus, toMetadata } from "./metadata.ts";

/** How many bytes of an answer may wait for its reader before the handler waits too. */
const MAX_UNSENT_BYTES = 64 * 1024;

const responseHeaders: OutgoingHttpHeaders = {
  ":status": 200,
  "content-type": "application/grpc+proto",
  "grpc-accept-encoding": "identity",
};
/**
 * The same as a list, which node:http2 takes as it is where it copies an object. Left to itself it adds the date, which gRPC
 * has no use for; a release that did so again could not, and every call would fail.
 */
const plainHeaders: readonly string[] = Object.freeze(Object.entries(responseHeaders).flat().map(String));
const okTrailers: OutgoingHttpHeaders = { "grpc-status": "0", "grpc-message": "OK" };
const withTrailers = { waitForTrailers: true, sendDate: false } as const;
const withoutBody = { endStream: true } as const;

const trailersOf = Symbol("trailers");

/** A stream, with what its answer ends with where that is more than OK. */
interface Answered extends ServerHttp2Stream {
  [trailersOf]?: OutgoingHttpHeaders;
}

/** All answers share it: what a listener holds is kept as long as node:http2 keeps the stream, and costs more than the answer. */
function sendTrailers(this: Answered): void {
  this.sendTrailers(this[trailersOf] ?? okTrailers);
}

/** What a handler adds to an answer, where it does. */
export interface SentMetadata {
  readonly sentHeaders: Headers | undefined;
  readonly sentTrailers: Headers | undefined;
}

const nothingSent: SentMetadata = { sentHeaders: undefined, sentTrailers: undefined };

/** The answer of one call: headers, messages, and a status behind them, or a status alone. */
export class Answer {
  readonly #stream: Answered;
  #pending: Uint8Array[] = [];
  #unsent = 0;
  #room: PromiseWithResolvers<void> | undefined;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  /**
   * Sends one of many messages, together with all that come before the process turns to other things. The promise settles
   * when the reader has taken enough of them.
   */
  put(message: Uint8Array, sent: SentMetadata): void | Promise<void> {
    if (this.#isOver()) return undefined;
    this.#begin(sent);
    if (this.#pending.length === 0) process.nextTick(() => this.#flush());
    this.#pending.push(message);
    this.#unsent += PREFIX_BYTES + message.length;
    if (this.#unsent <= MAX_UNSENT_BYTES) return undefined;
    this.#room ??= Promise.withResolvers();
    return this.#room.promise;
  }

  /** Ends the answer well, with a last message where one is given. */
  end(last?: Uint8Array, sent = nothingSent): void {
    if (this.#isOver()) return;
    this.#begin(sent);
    if (sent.sentTrailers !== undefined) this.#stream[trailersOf] = withMetadata(okTrailers, sent.sentTrailers);
    if (last === undefined) this.#finish(this.#pending);
    else this.#finish(this.#pending.length === 0 ? [last] : [...this.#pending, last]);
  }

  /** Ends the answer with an error, after what was put. */
  fail(error: ServiceError, sent = nothingSent): void {
    if (this.#isOver()) return;
    const stream = this.#stream;
    const { code, details, metadata } = toGrpcStatus(error, sent.sentTrailers);
    const status = {
      "grpc-status": code,
      "grpc-message": encodeURI(details.toWellFormed()),
      ...metadata.toHttp2Headers(),
    };
    if (!stream.headersSent && sent.sentHeaders === undefined) {
      stream.respond({ ...responseHeaders, ...status }, withoutBody);
      return;
    }
    this.#begin(sent);
    stream[trailersOf] = status;
    this.#finish(this.#pending);
  }

  #begin({ sentHeaders }: SentMetadata): void {
    const stream = this.#stream;
    if (stream.headersSent) return;
    stream.respond(sentHeaders === undefined ? plainHeaders : withMetadata(responseHeaders, sentHeaders), withTrailers);
    stream.on("wantTrailers", sendTrailers);
  }

  #flush(): void {
    const messages = this.#pending;
    this.#pending = [];
    if (this.#isOver()) {
      // Nobody takes them any more, so nobody would tell a handler that waits.
      this.#room?.resolve();
      return;
    }
    if (messages.length === 0) return;
    const bytes = toFrames(messages);
    this.#stream.write(bytes, () => this.#sent(bytes.length));
  }

  #sent(bytes: number): void {
    this.#unsent -= bytes;
    if (this.#unsent > MAX_UNSENT_BYTES) return;
    this.#room?.resolve();
    this.#room = undefined;
  }

  #finish(messages: readonly Uint8Array[]): void {
    if (messages.length === 0) this.#stream.end();
    else this.#stream.end(toFrames(messages));
    this.#pending = [];
  }

  #isOver(): boolean {
    const { destroyed, closed, writableEnded } = this.#stream;
    return destroyed || closed || writableEnded;
  }
}

function withMetadata(fixed: OutgoingHttpHeaders, more: Headers): OutgoingHttpHeaders {
  return { ...fixed, ...toMetadata(more).toHttp2Headers() };
}
