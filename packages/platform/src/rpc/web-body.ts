import type { IncomingMessage, ServerResponse } from "node:http";
import { constants, Http2ServerRequest } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";

/** A body may come in so many chunks whatever they hold. */
const FREE_CHUNKS = 1_000;
/** Beyond, a chunk holds so many bytes on average: an empty message of a stream has five. */
const MIN_CHUNK_BYTES = 4;
/** So many bytes may wait for their reader before no more are taken from the connection. */
const MAX_UNREAD_BYTES = 64 * 1024;

/**
 * The body of a request, in pieces of all that came since the last one: a body can come in chunks of a byte each, and each
 * piece is a dozen promises for whoever parses it. Whoever stops before its end still answers; then what is left is cut off.
 *
 * @throws {ConnectError} Canceled when the caller leaves; InvalidArgument for a body in too many too small chunks, which
 *   cost far more than they bring.
 */
export async function* bodyOf(request: IncomingMessage, response: ServerResponse): AsyncGenerator<Uint8Array, void> {
  let arrived: Buffer[] = [];
  let unread = 0;
  let chunks = 0;
  let bytes = 0;
  let over: { readonly error?: ConnectError } | undefined;
  let changed = Promise.withResolvers<void>();
  const end = (error?: ConnectError): void => {
    over ??= error === undefined ? {} : { error };
    changed.resolve();
  };
  const left = (): void => end(new ConnectError("the caller left", Code.Canceled));
  const take = (chunk: Buffer): void => {
    chunks += 1;
    bytes += chunk.length;
    unread += chunk.length;
    arrived.push(chunk);
    if (chunks > FREE_CHUNKS + bytes / MIN_CHUNK_BYTES) {
      request.pause();
      end(new ConnectError(`${chunks} chunks hold ${bytes} bytes; send fewer and larger ones`, Code.InvalidArgument));
    } else if (unread > MAX_UNREAD_BYTES) request.pause();
    changed.resolve();
  };
  request.on("aborted", left).on("error", left).on("close", left);
  request.on("end", () => end()).on("data", take);
  // Nobody else reads it, so one that was read has ended with its call, before anybody asked for it.
  if (request.aborted || request.destroyed || request.readableEnded) left();
  try {
    for (;;) {
      if (over?.error !== undefined) throw over.error;
      if (arrived.length > 0) {
        const [first = Buffer.alloc(0)] = arrived;
        const piece = arrived.length === 1 ? first : Buffer.concat(arrived);
        arrived = [];
        unread = 0;
        request.resume();
        yield piece;
      } else if (over !== undefined) return;
      else {
        changed = Promise.withResolvers();
        await changed.promise;
      }
    }
  } finally {
    request.off("data", take);
    if (!request.readableEnded) cutOff(request, response);
  }
}

/** Ends what is still sent of a body, once its answer is on its way. */
function cutOff(request: IncomingMessage, response: ServerResponse): void {
  request.pause();
  if (request instanceof Http2ServerRequest) {
    // Its response tells that it is finished only when the stream is closed. Trailers are sent in the next turn, and end it.
    const cut = () => request.stream.close(constants.NGHTTP2_NO_ERROR);
    request.stream.once("wantTrailers", () => setImmediate(cut));
  } else if (response.writableFinished) request.destroy();
  else response.once("finish", () => request.destroy());
}
