import {
  type CatalogService,
  type UpdatePlanRequest,
  UpdatePlanResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkEtag } from "../domain/etag.ts";
import { retire } from "../domain/retirement.ts";
import { recordCatalogChange } from "../history.ts";
import { getPlan, raiseCatalogVersion, updatePlan as save } from "../store/catalog.ts";
import { planToProto } from "./convert.ts";
import { nameOf, type Readers, readMask } from "./mask.ts";
import { once } from "./once.ts";

const readers: Readers<UpdatePlanRequest, { name?: string; retired?: boolean }> = {
  name: nameOf,
  retired: ({ retired }) => ({ retired }),
};

/** Changes the fields of a plan that a mask names. */
export const updatePlan: Handler<typeof CatalogService, "updatePlan", Context> = async (ctx, call, request) => {
  const { name, retired } = readMask(readers, request);
  return once(ctx, call, request, UpdatePlanResponseSchema, async (tx) => {
    await raiseCatalogVersion(tx, call.tenant, request.product);
    const before = await getPlan(tx, call.tenant, request.product, request.plan, 0);
    checkEtag(`Plan ${before.plan} of product ${before.product}`, request.etag, before.revision);
    const plan = {
      ...retire(before, retired, ctx.now()),
      ...(name !== undefined && { name }),
      revision: before.revision + 1n,
    };
    await save(tx, call.tenant, plan);
    await recordCatalogChange(ctx, tx, call, plan.product);
    return { plan: planToProto(plan) };
  });
};
