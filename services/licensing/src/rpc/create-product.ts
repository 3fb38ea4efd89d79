import {
  type CatalogService,
  CreateProductResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { recordCatalogChange } from "../history.ts";
import { insertProduct } from "../store/catalog.ts";
import { failModeFromProto, keyStyleFromProto, productToProto, seatPolicyFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Adds a product. */
export const createProduct: Handler<typeof CatalogService, "createProduct", Context> = (ctx, call, request) =>
  once(ctx, call, request, CreateProductResponseSchema, async (tx) => {
    const keyStyle = keyStyleFromProto(request);
    const product = {
      product: request.product,
      name: request.name,
      graceDays: request.graceDays,
      offlineDays: request.offlineDays,
      ...(keyStyle && { keyStyle }),
      seatPolicy: seatPolicyFromProto(request.seatPolicy),
      failGraceSeconds: failModeFromProto(request.failMode),
      createdAt: ctx.now(),
      revision: 1n,
    };
    if (!(await insertProduct(tx, call.tenant, product))) {
      throw failure("PRODUCT_EXISTS", `A product ${product.product} exists already.`);
    }
    await recordCatalogChange(ctx, tx, call, product.product);
    return { product: productToProto(product) };
  });
