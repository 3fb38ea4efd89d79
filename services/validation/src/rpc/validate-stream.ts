import {
  type ValidateStreamRequest,
  ValidateStreamResponseSchema,
  type ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Call } from "@licet/platform/rpc/call";
import { encoded } from "@licet/platform/rpc/encoded";
import type { Handler } from "@licet/platform/rpc/handlers";
import { type Answering, answerOne } from "./answers.ts";
import { type Piece, toAnswers } from "./prepared.ts";

/** How many answers may wait for their reader, or for earlier ones, before no further message is read; one message may go beyond. */
const MAX_UNSENT = 500;
/** How many questions of one stream may wait for licensing at once: many streams share what a replica may look up. */
const MAX_WAITING = 32;
/** How many answers go into one message. */
const MAX_ANSWERS = 500;

/**
 * Answers questions in their order. They are read ahead while answers are on their way to a reader or wait for licensing,
 * and all that is ready when the reader takes the next message goes into that one.
 */
export const validateStream: Handler<typeof ValidationService, "validateStream", Answering> = async function* (
  ctx,
  call,
  requests,
) {
  const line = createLine();
  void readAhead(ctx, call, requests, line).then(line.end, line.fail);
  for (;;) {
    const pieces = await line.take();
    if (pieces === undefined) return;
    yield encoded(ValidateStreamResponseSchema, toAnswers(pieces));
  }
};

/** Puts an answer into the line for each question, and reads no faster than they leave it. */
async function readAhead(
  ctx: Answering,
  call: Call,
  requests: AsyncIterable<ValidateStreamRequest>,
  line: Line,
): Promise<void> {
  for await (const { questions } of requests) {
    let begunAt = performance.now();
    for (const [index, question] of questions.entries()) {
      const piece = answerOne(ctx, call, question, index);
      line.put(piece);
      if (!(piece instanceof Promise)) continue;
      await line.until(({ waiting }) => waiting < MAX_WAITING);
      // What others have taken meanwhile was not ours.
      begunAt = performance.now();
    }
    ctx.metrics.took((performance.now() - begunAt) / 1_000);
    await line.until(({ length }) => length < MAX_UNSENT);
  }
}

/** Answers in the order of their questions, some of them not ready yet. */
interface Line {
  put(piece: Piece | Promise<Piece>): void;
  /**
   * The first ones that are ready, one at least; undefined: there is none and will be none.
   *
   * @throws what an answer failed with when it is the first, and what the line failed with behind the last one.
   */
  take(): Promise<Piece[] | undefined>;
  /** Waits for room. */
  until(holds: (state: { readonly length: number; readonly waiting: number }) => boolean): Promise<void>;
  end(): void;
  fail(error: unknown): void;
}

/** A place in the line; empty until its answer is ready. */
interface Place {
  piece: Piece | undefined;
  failure?: { readonly error: unknown };
}

function createLine(): Line {
  let places: Place[] = [];
  let waiting = 0;
  let outcome: { readonly error?: unknown } | undefined;
  let changed = Promise.withResolvers<void>();
  const change = (): void => {
    changed.resolve();
    changed = Promise.withResolvers();
  };
  const settle = (value: { readonly error?: unknown }): void => {
    outcome ??= value;
    change();
  };
  const fill = async (place: Place, piece: Promise<Piece>): Promise<void> => {
    waiting += 1;
    try {
      place.piece = await piece;
    } catch (error) {
      place.failure = { error };
    }
    waiting -= 1;
    change();
  };
  return {
    put(piece) {
      const place: Place = { piece: piece instanceof Promise ? undefined : piece };
      places.push(place);
      if (piece instanceof Promise) void fill(place, piece);
      else if (places.length === 1) change();
    },
    async take() {
      for (;;) {
        const failure = places[0]?.failure;
        if (failure !== undefined) throw failure.error;
        const pieces: Piece[] = [];
        for (const { piece } of places) {
          if (piece === undefined || pieces.length === MAX_ANSWERS) break;
          pieces.push(piece);
        }
        if (pieces.length > 0) {
          places = places.slice(pieces.length);
          change();
          return pieces;
        }
        if (places.length === 0 && outcome !== undefined) {
          if ("error" in outcome) throw outcome.error;
          return undefined;
        }
        await changed.promise;
      }
    },
    async until(holds) {
      while (!holds({ length: places.length, waiting }) && outcome === undefined) await changed.promise;
    },
    end: () => settle({}),
    fail: (error) => settle({ error }),
  };
}
