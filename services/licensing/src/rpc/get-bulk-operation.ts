import type { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getOperation } from "../store/bulk.ts";
import { operationToProto } from "./convert-bulk.ts";

/** Tells how far a bulk operation is. */
export const getBulkOperation: Handler<typeof BulkService, "getBulkOperation", Context> = async (
  ctx,
  call,
  request,
) => {
  const load = (tx: Parameters<typeof getOperation>[0]) => getOperation(tx, call.tenant, request.operationId);
  return { operation: operationToProto(await inTenant(ctx.db, call.tenant, load, { readOnly: true })) };
};
