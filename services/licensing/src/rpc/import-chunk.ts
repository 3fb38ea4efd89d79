import type { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { takeChunk } from "../imports/import.ts";
import { withFirstErrors } from "./get-import.ts";

/** Takes a piece of a file. It is not run `once`: the import itself knows which bytes it has. */
export const importChunk: Handler<typeof BulkService, "importChunk", Context> = async (ctx, call, request) => {
  const { importId, data, final } = request;
  const chunk = { importId, offset: Number(request.offset), data, final };
  const state = await takeChunk(ctx, call, chunk);
  return { import: await withFirstErrors(ctx, call, state) };
};
