import type { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { decide, type Facts } from "@licet/decide/decide";
import { explain } from "@licet/decide/explain";
import { InvalidValueError } from "@licet/decide/limits";
import { invalidArgument, ServiceError } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
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
    const usage = ctx.usage.of(call.tenant, question.customerId);
    const facts: Facts = { snapshot: found.snapshot, catalogs: ctx.catalogs.of(call.tenant), usage, overdueMs };
    const nowMs = ctx.now();
    const outcome = decide(question, facts, nowMs);
    const explanation = request.explain ? explain(question, facts, nowMs) : undefined;
    const degraded = overdueMs >= 0;
    ctx.metrics.decided(outcome, degraded, (performance.now() - begunAt) / 1_000);
    return toResponse({ outcome, found, degraded, usage, explanation, nowMs });
  } catch (caught) {
    const error = caught instanceof InvalidValueError ? invalidArgument(caught.field, caught.description) : caught;
    const code = error instanceof ServiceError ? error.code : "INTERNAL";
    ctx.metrics.failed(code, (performance.now() - begunAt) / 1_000);
    throw error;
  }
};
