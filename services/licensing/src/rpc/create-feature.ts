import {
  type CatalogService,
  CreateFeatureResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { recordCatalogChange } from "../history.ts";
import { countFeatures, type Feature, getProduct, insertFeature, raiseCatalogVersion } from "../store/catalog.ts";
import { failModeFromProto, featureToProto } from "./convert.ts";
import { once } from "./once.ts";

/** A catalogue travels as one event: 2,000 features of the longest codes take about 140 KiB. */
const MAX_FEATURES = 2_000;

/** Adds a feature to a product; licenses with `*` have it at once. */
export const createFeature: Handler<typeof CatalogService, "createFeature", Context> = (ctx, call, request) =>
  once(ctx, call, request, CreateFeatureResponseSchema, async (tx) => {
    await raiseCatalogVersion(tx, call.tenant, request.product);
    const product = await getProduct(tx, call.tenant, request.product);
    const feature: Feature = {
      product: request.product,
      feature: request.feature,
      name: request.name,
      reduceOnly: request.reduceOnly,
      failGraceSeconds: failModeFromProto(request.failMode, product.failGraceSeconds),
      failModeInherited: request.failMode === undefined,
      createdAt: ctx.now(),
      revision: 1n,
    };
    if (!(await insertFeature(tx, call.tenant, feature))) {
      throw failure("FEATURE_EXISTS", `Product ${feature.product} has a feature ${feature.feature} already.`);
    }
    if ((await countFeatures(tx, call.tenant, feature.product)) > MAX_FEATURES) {
      throw failure(
        "TOO_MANY_FEATURES",
        `Product ${feature.product} has ${MAX_FEATURES} features, the most possible.`,
        {
          maximum: `${MAX_FEATURES}`,
        },
      );
    }
    await recordCatalogChange(ctx, tx, call, feature.product);
    return { feature: featureToProto(feature) };
  });
