import {
  type CatalogService,
  PublishAddOnVersionResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { checkAddOn } from "../add-ons.ts";
import type { Context } from "../context.ts";
import type { AddOn } from "../domain/add-on.ts";
import { checkEtag } from "../domain/etag.ts";
import { recordCatalogChange } from "../history.ts";
import { getAddOn, insertAddOnVersion, updateAddOn } from "../store/add-ons.ts";
import { raiseCatalogVersion } from "../store/catalog.ts";
import { addOnTermsFromProto, addOnToProto } from "./convert-add-ons.ts";
import { once } from "./once.ts";

/** Gives an add-on new terms as its next version; licenses keep what they were sold. */
export const publishAddOnVersion: Handler<typeof CatalogService, "publishAddOnVersion", Context> = (
  ctx,
  call,
  request,
) =>
  once(ctx, call, request, PublishAddOnVersionResponseSchema, async (tx) => {
    const terms = addOnTermsFromProto(request.terms);
    const { tenant } = call;
    await raiseCatalogVersion(tx, tenant, request.product);
    const before = await getAddOn(tx, tenant, request.product, request.addOn, 0);
    checkEtag(`Add-on ${before.addOn} of product ${before.product}`, request.etag, before.revision);
    await checkAddOn(tx, tenant, request.product, terms);
    const version = before.latestVersion + 1;
    const addOn: AddOn = {
      ...before,
      version,
      latestVersion: version,
      terms,
      publishedAt: ctx.now(),
      revision: before.revision + 1n,
    };
    await updateAddOn(tx, tenant, addOn);
    await insertAddOnVersion(tx, tenant, addOn);
    await recordCatalogChange(ctx, tx, call, addOn.product);
    return { addOn: addOnToProto(addOn) };
  });
