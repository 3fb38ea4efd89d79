import { type CatalogService, CreateAddOnResponseSchema } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { checkAddOn } from "../add-ons.ts";
import type { Context } from "../context.ts";
import type { AddOn } from "../domain/add-on.ts";
import { failure } from "../errors.ts";
import { recordCatalogChange } from "../history.ts";
import { insertAddOn } from "../store/add-ons.ts";
import { raiseCatalogVersion } from "../store/catalog.ts";
import { addOnTermsFromProto, addOnToProto } from "./convert-add-ons.ts";
import { once } from "./once.ts";

/** Adds an add-on with its version 1. */
export const createAddOn: Handler<typeof CatalogService, "createAddOn", Context> = (ctx, call, request) =>
  once(ctx, call, request, CreateAddOnResponseSchema, async (tx) => {
    const terms = addOnTermsFromProto(request.terms);
    await raiseCatalogVersion(tx, call.tenant, request.product);
    await checkAddOn(tx, call.tenant, request.product, terms);
    const addOn: AddOn = {
      product: request.product,
      addOn: request.addOn,
      name: request.name,
      version: 1,
      latestVersion: 1,
      terms,
      publishedAt: ctx.now(),
      revision: 1n,
    };
    if (!(await insertAddOn(tx, call.tenant, addOn))) {
      throw failure("ADD_ON_EXISTS", `Product ${addOn.product} has an add-on ${addOn.addOn} already.`);
    }
    await recordCatalogChange(ctx, tx, call, addOn.product);
    return { addOn: addOnToProto(addOn) };
  });
