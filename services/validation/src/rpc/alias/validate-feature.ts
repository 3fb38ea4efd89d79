import { create } from "@bufbuild/protobuf";
import type { LicensingService } from "@licet/contracts/licensing/licensing_service_pb";
import {
  ValidateFeatureRequestSchema,
  ValidateFeatureResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { validateFeature as decide } from "../validate-feature.ts";
import type { AliasContext } from "./context.ts";
import { fromSummary } from "./convert.ts";

/** ValidationService's ValidateFeature, in the words of the first plan. */
export const validateFeature: Handler<typeof LicensingService, "validateFeature", AliasContext> = async (
  ctx,
  call,
  { customerId, feature, context },
) => {
  const request = create(ValidateFeatureRequestSchema, { customerId, feature, context });
  const reply = create(ValidateFeatureResponseSchema, await decide(ctx, call, request));
  return { valid: reply.valid, license: reply.license && fromSummary(reply.license), violations: reply.violations };
};
