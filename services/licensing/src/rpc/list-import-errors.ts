import type { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenBigint, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getImport, listRowErrors } from "../store/imports.ts";
import { rowErrorToProto } from "./convert-bulk.ts";

/** Lists what is wrong with the rows of an import. */
export const listImportErrors: Handler<typeof BulkService, "listImportErrors", Context> = async (
  ctx,
  call,
  request,
) => {
  const [after = "0"] = decodePageToken(request.pageToken, 1) ?? [];
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const { importId } = request;
  const rows = await inTenant(
    ctx.db,
    call.tenant,
    async (tx) => {
      await getImport(tx, call.tenant, importId);
      return listRowErrors(tx, call.tenant, importId, pageTokenBigint(after), pageSize + 1);
    },
    { readOnly: true },
  );
  const { items, nextPageToken } = toPage(rows, pageSize, ({ errorNo }) => [errorNo.toString()]);
  return { errors: items.map(rowErrorToProto), nextPageToken };
};
