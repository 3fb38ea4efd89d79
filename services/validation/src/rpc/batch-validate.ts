import {
  BatchValidateResponseSchema,
  type ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { encoded } from "@licet/platform/rpc/encoded";
import type { Handler } from "@licet/platform/rpc/handlers";
import { type Answering, answerOne } from "./answers.ts";
import { type Piece, toAnswers } from "./prepared.ts";

/** How many questions of one batch may wait for licensing at once: many batches share what a replica may look up. */
const MAX_WAITING = 32;

/** Answers many questions, each as ValidateFeature would. */
export const batchValidate: Handler<typeof ValidationService, "batchValidate", Answering> = async (
  ctx,
  call,
  { questions },
) => {
  const pieces = new Array<Piece>(questions.length);
  const entries = questions.entries();
  let begunAt = performance.now();
  const work = async (): Promise<void> => {
    // All workers take from the same iterator. Whoever left meanwhile costs no more than what is under way.
    for (const [index, question] of entries) {
      const piece = answerOne(ctx, call, question, index);
      pieces[index] = piece instanceof Promise ? await piece : piece;
      if (!(piece instanceof Promise)) continue;
      call.signal.throwIfAborted();
      // What others have taken meanwhile was not ours.
      begunAt = performance.now();
    }
  };
  await Promise.all(Array.from({ length: Math.min(MAX_WAITING, questions.length) }, work));
  ctx.metrics.took((performance.now() - begunAt) / 1_000);
  return encoded(BatchValidateResponseSchema, toAnswers(pieces));
};
