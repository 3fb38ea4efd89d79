import {
  type CatalogService,
  PublishPlanVersionResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkTerms, type Plan } from "../domain/terms.ts";
import { failure } from "../errors.ts";
import { checkFeaturesExist, insertPlanVersion, raisePlanVersion } from "../store/catalog.ts";
import { planToProto, termsFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Gives a plan new terms as its next version; licenses stay on the version they have. */
export const publishPlanVersion: Handler<typeof CatalogService, "publishPlanVersion", Context> = (ctx, call, request) =>
  once(ctx, call, request, PublishPlanVersionResponseSchema, async (tx) => {
    const terms = termsFromProto(request.terms);
    checkTerms(terms);
    const raised = await raisePlanVersion(tx, call.tenant, request.product, request.plan);
    if (!raised) throw failure("PLAN_NOT_FOUND", `There is no plan ${request.plan} of product ${request.product}.`);
    await checkFeaturesExist(tx, call.tenant, request.product, [...terms.features, ...terms.grantable]);
    const plan: Plan = {
      product: request.product,
      plan: request.plan,
      name: raised.name,
      version: raised.latest_version,
      latestVersion: raised.latest_version,
      terms,
      publishedAt: ctx.now(),
    };
    await insertPlanVersion(tx, call.tenant, plan);
    return { plan: planToProto(plan) };
  });
