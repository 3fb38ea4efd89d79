import {
  type CatalogService,
  type UpdateProductRequest,
  UpdateProductResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkEtag } from "../domain/etag.ts";
import { type ProductUpdate, updateProduct as update } from "../domain/product.ts";
import { recordCatalogChange } from "../history.ts";
import { hasLicenses, lockProduct, updateProduct as save } from "../store/catalog.ts";
import { failModeFromProto, keyFormatFromProto, productToProto, seatPolicyFromProto } from "./convert.ts";
import { nameOf, type Readers, readMask } from "./mask.ts";
import { once } from "./once.ts";

const readers: Readers<UpdateProductRequest, ProductUpdate> = {
  name: nameOf,
  grace_days: ({ graceDays }) => ({ graceDays }),
  offline_days: ({ offlineDays }) => ({ offlineDays }),
  key_format: ({ keyFormat }) => ({ keyFormat: keyFormatFromProto(keyFormat) ?? "none" }),
  key_prefix: ({ keyPrefix }) => ({ keyPrefix }),
  fail_mode: ({ failMode }) => ({ failGraceSeconds: failModeFromProto(failMode) }),
  seat_policy: ({ seatPolicy }) => ({ seatPolicy: seatPolicyFromProto(seatPolicy) }),
};

/** Changes the fields of a product that a mask names. */
export const updateProduct: Handler<typeof CatalogService, "updateProduct", Context> = async (ctx, call, request) => {
  const named = readMask(readers, request);
  return once(ctx, call, request, UpdateProductResponseSchema, async (tx) => {
    const before = await lockProduct(tx, call.tenant, request.product);
    checkEtag(`Product ${before.product}`, request.etag, before.revision);
    const product = update(before, named, await hasLicenses(tx, call.tenant, before.product));
    await save(tx, call.tenant, product);
    await recordCatalogChange(ctx, tx, call, product.product);
    return { product: productToProto(product) };
  });
};
