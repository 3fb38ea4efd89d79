import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  DeactivateFeatureResponseSchema,
  type LicensingService,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { deactivateFeature as decide } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { checkFeaturesExist } from "../store/catalog.ts";
import { once } from "./once.ts";

/** Takes the grant of a feature from a license. */
export const deactivateFeature: Handler<typeof LicensingService, "deactivateFeature", Context> = (ctx, call, request) =>
  once(ctx, call, request, DeactivateFeatureResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, async (license, now) => {
      const { feature } = request;
      await checkFeaturesExist(tx, call.tenant, license.product, [feature]);
      const cause = LicenseChangeCause.FEATURE_DEACTIVATED;
      return { cause, license: decide(license, feature, now), feature };
    }),
  );
