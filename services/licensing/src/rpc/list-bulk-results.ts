import { fromBinary } from "@bufbuild/protobuf";
import { BulkResultSchema } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import type { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenUuid, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getOperation, listResults } from "../store/bulk.ts";

/** A page's results have at most so many bytes together. */
const MAX_PAGE_BYTES = 512 * 1024;

/** Lists what a bulk operation could not change and, of a dry run, what it would change. */
export const listBulkResults: Handler<typeof BulkService, "listBulkResults", Context> = async (ctx, call, request) => {
  const [token] = decodePageToken(request.pageToken, 1) ?? [];
  const after = token === undefined ? "" : pageTokenUuid(token);
  const { operationId, failedOnly } = request;
  const limit = request.pageSize || DEFAULT_PAGE_SIZE;
  const { results, more } = await inTenant(
    ctx.db,
    call.tenant,
    async (tx) => {
      await getOperation(tx, call.tenant, operationId);
      return listResults(tx, call.tenant, { operationId, failedOnly, after, limit, maxBytes: MAX_PAGE_BYTES });
    },
    { readOnly: true },
  );
  // The page is cut by its bytes already, so one row stands for what comes behind it.
  const { nextPageToken } = toPage(more ? [...results, ...results.slice(-1)] : results, results.length, (result) => [
    result.licenseId,
  ]);
  return { results: results.map(({ result }) => fromBinary(BulkResultSchema, result)), nextPageToken };
};
