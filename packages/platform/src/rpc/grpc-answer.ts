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
const okTrailers: OutgoingHttpHeaders = { "grpc-status": "0", "grpc-message": "OK" };
const withTrailers = { waitForTrailers: true } as const;
const withoutBody = { endStream: true } as const;

/** What a handler adds to an answer, where it does. */
export interface SentMetadata {
  readonly sentHeaders: Headers | undefined;
  readonly sentTrailers: Headers | undefined;
}

const nothingSent: SentMetadata = { sentHeaders: undefined, sentTrailers: undefined };

/** The answer of one call: headers, messages, and a status behind them, or a status alone. */
export class Answer {
  readonly #stream: ServerHttp2Stream;
  #pending: Uint8Array[] = [];
  #unsent = 0;
  #room: PromiseWithResolvers<void> | undefined;
  #trailers = okTrailers;

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
    if (sent.sentTrailers !== undefined) this.#trailers = withMetadata(okTrailers, sent.sentTrailers);
    if (last !== undefined) this.#pending.push(last);
    this.#finish();
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
    this.#trailers = status;
    this.#finish();
  }

  #begin({ sentHeaders }: SentMetadata): void {
    const stream = this.#stream;
    if (stream.headersSent) return;
    stream.respond(
      sentHeaders === undefined ? responseHeaders : withMetadata(responseHeaders, sentHeaders),
      withTrailers,
    );
    stream.on("wantTrailers", () => stream.sendTrailers(this.#trailers));
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

  #finish(): void {
    if (this.#pending.length === 0) this.#stream.end();
    else this.#stream.end(toFrames(this.#pending));
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
