import { type BulkService, CancelImportResponseSchema } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { lockImport, updateImport } from "../store/imports.ts";
import { importToProto } from "./convert-bulk.ts";
import { once } from "./once.ts";

/** Gives an import up. */
export const cancelImport: Handler<typeof BulkService, "cancelImport", Context> = (ctx, call, request) =>
  once(ctx, call, request, CancelImportResponseSchema, async (tx) => {
    const before = await lockImport(tx, call.tenant, request.importId);
    if (before.status !== "running") return { import: importToProto(before, []) };
    const state = await updateImport(tx, call.tenant, { ...before, status: "cancelled", rest: new Uint8Array() });
    return { import: importToProto(state, []) };
  });
