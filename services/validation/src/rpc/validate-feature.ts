import type { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ServiceError } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { decide } from "../domain/decide.ts";
import { toAtLeast, toQuestion, toResponse } from "./convert.ts";

/**
 * Decides whether a customer may use a feature, from memory. Licensing is asked about customers that are not in it, or of
 * whom it knows too little: nothing younger than the fence allows, or not the write that the caller has made.
 */
export const validateFeature: Handler<typeof ValidationService, "validateFeature", Context> = async (
  ctx,
  call,
  request,
) => {
  const begunAt = performance.now();
  try {
    const question = toQuestion(request);
    const found = await ctx.snapshots.find(call.tenant, question.customerId, toAtLeast(request));
    ctx.metrics.lookedUp(found.source === "MEMORY");
    const overdueMs = found.stalenessMs - ctx.fenceMs;
    const facts = { snapshot: found.snapshot, catalogs: ctx.catalogs.of(call.tenant), overdueMs };
    const outcome = decide(question, facts, ctx.now());
    const degraded = overdueMs >= 0;
    ctx.metrics.decided(outcome, degraded, (performance.now() - begunAt) / 1_000);
    return toResponse(outcome, found, degraded);
  } catch (error) {
    const code = error instanceof ServiceError ? error.code : "INTERNAL";
    ctx.metrics.failed(code, (performance.now() - begunAt) / 1_000);
    throw error;
  }
};
