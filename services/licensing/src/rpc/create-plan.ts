import { type CatalogService, CreatePlanResponseSchema } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkTerms, type Plan } from "../domain/terms.ts";
import { failure } from "../errors.ts";
import { recordCatalogChange } from "../history.ts";
import { checkFeaturesExist, insertPlan, raiseCatalogVersion } from "../store/catalog.ts";
import { getCustomer } from "../store/customers.ts";
import { planToProto, termsFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Adds a plan with its version 1, for every customer or for one. */
export const createPlan: Handler<typeof CatalogService, "createPlan", Context> = (ctx, call, request) =>
  once(ctx, call, request, CreatePlanResponseSchema, async (tx) => {
    const terms = termsFromProto(request.terms);
    checkTerms(terms);
    await raiseCatalogVersion(tx, call.tenant, request.product);
    if (request.customerId !== "") await getCustomer(tx, call.tenant, request.customerId);
    await checkFeaturesExist(tx, call.tenant, request.product, [...terms.features, ...terms.grantable]);
    const plan: Plan = {
      product: request.product,
      plan: request.plan,
      name: request.name,
      version: 1,
      latestVersion: 1,
      terms,
      publishedAt: ctx.now(),
      ...(request.customerId !== "" && { customerId: request.customerId }),
      revision: 1n,
    };
    if (!(await insertPlan(tx, call.tenant, plan))) {
      throw failure("PLAN_EXISTS", `Product ${plan.product} has a plan ${plan.plan} already.`);
    }
    await recordCatalogChange(ctx, tx, call, plan.product);
    return { plan: planToProto(plan) };
  });
