import {
  type BulkService,
  CancelBulkOperationResponseSchema,
} from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { lockOperation, updateOperation } from "../store/bulk.ts";
import { operationToProto } from "./convert-bulk.ts";
import { once } from "./once.ts";

/** Ends a bulk operation before its time. */
export const cancelBulkOperation: Handler<typeof BulkService, "cancelBulkOperation", Context> = (ctx, call, request) =>
  once(ctx, call, request, CancelBulkOperationResponseSchema, async (tx) => {
    const before = await lockOperation(tx, call.tenant, request.operationId);
    if (before.status !== "running") return { operation: operationToProto(before) };
    const operation = { ...before, status: "cancelled" } as const;
    await updateOperation(tx, call.tenant, operation);
    return { operation: operationToProto(operation) };
  });
