import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  ActivateFeatureResponseSchema,
  type LicensingService,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkConfiguration } from "../domain/grant.ts";
import { activateFeature as decide } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { checkFeaturesExist, getPlan } from "../store/catalog.ts";
import { dateFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Grants a license a feature beyond its plan, or changes the grant that it has. */
export const activateFeature: Handler<typeof LicensingService, "activateFeature", Context> = (ctx, call, request) =>
  once(ctx, call, request, ActivateFeatureResponseSchema, (tx) => {
    const { feature, configuration, onBehalfOf } = request;
    checkConfiguration(configuration);
    const expiresAt = dateFromProto("expires_at", request.expiresAt);
    const activatedBy = call.credential.id;
    const wanted = { feature, configuration, activatedBy, onBehalfOf, ...(expiresAt && { expiresAt }) };
    return changeLicense(ctx, tx, call, request, async (license, now) => {
      const { plan, product } = license;
      await checkFeaturesExist(tx, call.tenant, product, [feature]);
      const terms = plan && (await getPlan(tx, call.tenant, product, plan.code, plan.version)).terms;
      const cause = LicenseChangeCause.FEATURE_ACTIVATED;
      return { cause, license: decide(license, wanted, terms?.grantable, now), feature };
    });
  });
