import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { implement, type ServiceBinding } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { validateFeature } from "./validate-feature.ts";

/** All RPCs of this service. */
export function bind(ctx: Context): ServiceBinding[] {
  return [implement(ValidationService, ctx, { validateFeature })];
}
