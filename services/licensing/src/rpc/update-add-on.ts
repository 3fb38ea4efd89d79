import {
  type CatalogService,
  type UpdateAddOnRequest,
  UpdateAddOnResponseSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import type { AddOn } from "../domain/add-on.ts";
import { checkEtag } from "../domain/etag.ts";
import { retire } from "../domain/retirement.ts";
import { recordCatalogChange } from "../history.ts";
import { getAddOn, updateAddOn as save } from "../store/add-ons.ts";
import { raiseCatalogVersion } from "../store/catalog.ts";
import { addOnToProto } from "./convert-add-ons.ts";
import { nameOf, type Readers, readMask } from "./mask.ts";
import { once } from "./once.ts";

const readers: Readers<UpdateAddOnRequest, { name?: string; retired?: boolean }> = {
  name: nameOf,
  retired: ({ retired }) => ({ retired }),
};

/** Changes the fields of an add-on that a mask names. */
export const updateAddOn: Handler<typeof CatalogService, "updateAddOn", Context> = async (ctx, call, request) => {
  const { name, retired } = readMask(readers, request);
  return once(ctx, call, request, UpdateAddOnResponseSchema, async (tx) => {
    await raiseCatalogVersion(tx, call.tenant, request.product);
    const before = await getAddOn(tx, call.tenant, request.product, request.addOn, 0);
    checkEtag(`Add-on ${before.addOn} of product ${before.product}`, request.etag, before.revision);
    const addOn: AddOn = {
      ...retire(before, retired, ctx.now()),
      ...(name !== undefined && { name }),
      revision: before.revision + 1n,
    };
    await save(tx, call.tenant, addOn);
    await recordCatalogChange(ctx, tx, call, addOn.product);
    return { addOn: addOnToProto(addOn) };
  });
};
