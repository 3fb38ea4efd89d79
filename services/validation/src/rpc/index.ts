import { LicensingService } from "@licet/contracts/licensing/licensing_service_pb";
import {
  ValidateFeatureRequestSchema,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { implement, type ServiceBinding } from "@licet/platform/rpc/handlers";
import { createMessageRules } from "@licet/platform/rpc/message-rules";
import type { Context } from "../context.ts";
import type { AliasClients } from "./alias/context.ts";
import { getLicense } from "./alias/get-license.ts";
import { getUsageStats } from "./alias/get-usage-stats.ts";
import { trackUsage } from "./alias/track-usage.ts";
import { validateFeature as validateFeatureAlias } from "./alias/validate-feature.ts";
import type { Answering } from "./answers.ts";
import { batchValidate } from "./batch-validate.ts";
import { checkFeatures } from "./check-features.ts";
import { decodeBatch, decodeCheckFeatures, decodeQuestion, decodeStream } from "./hand-decoder.ts";
import { createHotPath } from "./hot-path.ts";
import { validateFeature } from "./validate-feature.ts";
import { validateStream } from "./validate-stream.ts";
import { watchEntitlements } from "./watch-entitlements.ts";

/** All RPCs of this service, and the aliases of the first plan: a client of it has one address for the four. */
export function bind(ctx: Context, clients: AliasClients): ServiceBinding[] {
  const hotPath = createHotPath(ctx);
  const rules = createMessageRules();
  // The first check of a message type compiles its rules, which takes milliseconds.
  rules.prepare(ValidateFeatureRequestSchema);
  const answering: Answering = { ...ctx, hotPath, rules };
  const binding = implement(ValidationService, answering, {
    validateFeature,
    checkFeatures,
    batchValidate,
    validateStream,
    watchEntitlements,
  });
  return [
    {
      ...binding,
      shortcuts: {
        decoders: {
          validateFeature: decodeQuestion,
          checkFeatures: decodeCheckFeatures,
          batchValidate: decodeBatch,
          validateStream: decodeStream,
        },
        handlers: {
          validateFeature: ({ tenant }, request) => hotPath.validateFeature(tenant, request),
          checkFeatures: ({ tenant }, request) => hotPath.checkFeatures(tenant, request),
        },
      },
    },
    implement(
      LicensingService,
      { ...answering, clients },
      { validateFeature: validateFeatureAlias, getLicense, trackUsage, getUsageStats },
    ),
  ];
}
