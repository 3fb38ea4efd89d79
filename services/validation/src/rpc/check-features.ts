import type { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Facts } from "@licet/decide/decide";
import { InvalidValueError } from "@licet/decide/limits";
import { invalidArgument, ServiceError } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkColumns, toColumnsResponse } from "./columns.ts";
import { toValues } from "./convert.ts";

/** Decides about many features of one customer at one moment; its facts are found as ValidateFeature finds them. */
export const checkFeatures: Handler<typeof ValidationService, "checkFeatures", Context> = async (
  ctx,
  call,
  { customerId, features, context, atLeast },
) => {
  const begunAt = performance.now();
  try {
    const found = await ctx.snapshots.find(call.tenant, customerId, atLeast?.version ?? 0n);
    ctx.metrics.lookedUp(found.source === "MEMORY");
    const overdueMs = found.stalenessMs - ctx.fenceMs;
    const usage = ctx.usage.of(call.tenant, customerId);
    const facts: Facts = { snapshot: found.snapshot, catalogs: ctx.catalogs.of(call.tenant), usage, overdueMs };
    const nowMs = ctx.now();
    const columns = checkColumns({ customerId, ...toValues(context) }, features, facts, nowMs);
    const degraded = overdueMs >= 0;
    ctx.metrics.checked(columns.outcomes, degraded, (performance.now() - begunAt) / 1_000);
    return toColumnsResponse({ columns, found, degraded, usage, nowMs });
  } catch (caught) {
    const error = caught instanceof InvalidValueError ? invalidArgument(caught.field, caught.description) : caught;
    const code = error instanceof ServiceError ? error.code : "INTERNAL";
    ctx.metrics.failed(code, (performance.now() - begunAt) / 1_000);
    throw error;
  }
};
