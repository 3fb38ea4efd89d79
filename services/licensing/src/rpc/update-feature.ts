import {
  type CatalogService,
  type UpdateFeatureRequest,
  UpdateFeatureResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkEtag } from "../domain/etag.ts";
import { recordCatalogChange } from "../history.ts";
import { type Feature, getFeature, getProduct, raiseCatalogVersion, updateFeature as save } from "../store/catalog.ts";
import { failModeFromProto, featureToProto } from "./convert.ts";
import { nameOf, type Readers, readMask } from "./mask.ts";
import { once } from "./once.ts";

/** What an update names; the seconds of a fail mode are absent where the product's is to hold. */
type FeatureUpdate = Partial<Pick<Feature, "name" | "reduceOnly" | "failGraceSeconds" | "failModeInherited">>;

const readers: Readers<UpdateFeatureRequest, FeatureUpdate> = {
  name: nameOf,
  reduce_only: ({ reduceOnly }) => ({ reduceOnly }),
  fail_mode: ({ failMode }) =>
    failMode
      ? { failGraceSeconds: failModeFromProto(failMode), failModeInherited: false }
      : { failModeInherited: true },
};

/** Changes the fields of a feature that a mask names. */
export const updateFeature: Handler<typeof CatalogService, "updateFeature", Context> = async (ctx, call, request) => {
  const named = readMask(readers, request);
  return once(ctx, call, request, UpdateFeatureResponseSchema, async (tx) => {
    const { tenant } = call;
    await raiseCatalogVersion(tx, tenant, request.product);
    const { failGraceSeconds } = await getProduct(tx, tenant, request.product);
    const before = await getFeature(tx, tenant, request.product, request.feature);
    checkEtag(`Feature ${before.feature} of product ${before.product}`, request.etag, before.revision);
    const feature: Feature = {
      ...before,
      ...named,
      ...(named.failModeInherited && { failGraceSeconds }),
      revision: before.revision + 1n,
    };
    await save(tx, tenant, feature);
    await recordCatalogChange(ctx, tx, call, feature.product);
    return { feature: featureToProto(feature) };
  });
};
