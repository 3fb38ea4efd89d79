import {
  type CatalogService,
  PublishPlanVersionResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkEtag } from "../domain/etag.ts";
import { checkTerms, type Plan } from "../domain/terms.ts";
import { recordCatalogChange } from "../history.ts";
import { checkFeaturesExist, getPlan, insertPlanVersion, raiseCatalogVersion, updatePlan } from "../store/catalog.ts";
import { planToProto, termsFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Gives a plan new terms as its next version; licenses stay on the version they have. */
export const publishPlanVersion: Handler<typeof CatalogService, "publishPlanVersion", Context> = (ctx, call, request) =>
  once(ctx, call, request, PublishPlanVersionResponseSchema, async (tx) => {
    const terms = termsFromProto(request.terms);
    checkTerms(terms);
    const { tenant } = call;
    await raiseCatalogVersion(tx, tenant, request.product);
    const before = await getPlan(tx, tenant, request.product, request.plan, 0);
    checkEtag(`Plan ${before.plan} of product ${before.product}`, request.etag, before.revision);
    await checkFeaturesExist(tx, tenant, request.product, [...terms.features, ...terms.grantable]);
    const version = before.latestVersion + 1;
    const plan: Plan = {
      ...before,
      version,
      latestVersion: version,
      terms,
      publishedAt: ctx.now(),
      revision: before.revision + 1n,
    };
    await updatePlan(tx, tenant, plan);
    await insertPlanVersion(tx, tenant, plan);
    await recordCatalogChange(ctx, tx, call, plan.product);
    return { plan: planToProto(plan) };
  });
