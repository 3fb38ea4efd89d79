import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { invalidArgument } from "@licet/platform/errors";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenBigint, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { type HistoryHolder, listHistory, type StoredHistoryEntry } from "../store/history.ts";
import { historyEntryToProto } from "./convert.ts";

/** The most bytes of licenses in a page: entries with long notes make shorter pages, so that an answer can be sent. */
const MAX_PAGE_BYTES = 512 * 1024;

/** Lists what happened to a customer or to a license. */
export const listLicenseEvents: Handler<typeof LicensingService, "listLicenseEvents", Context> = async (
  ctx,
  call,
  request,
) => {
  const { holder } = request;
  if (holder.case === undefined) throw invalidArgument("holder", "needs customer_id or license_id");
  const of: HistoryHolder = holder.case === "licenseId" ? { licenseId: holder.value } : { customerId: holder.value };
  const [entryId] = decodePageToken(request.pageToken, 1) ?? [];
  const after = entryId === undefined ? 0n : pageTokenBigint(entryId);
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(ctx.db, call.tenant, (tx) => listHistory(tx, call.tenant, of, after, pageSize + 1), {
    readOnly: true,
  });
  const size = Math.min(pageSize, sendable(rows));
  const { items, nextPageToken } = toPage(rows, size, (row) => [row.entryId.toString()]);
  return { entries: items.map(historyEntryToProto), nextPageToken };
};

/** How many entries fit into a page; at least one. */
function sendable(rows: readonly StoredHistoryEntry[]): number {
  let bytes = 0;
  const over = rows.findIndex(({ before, after }) => {
    bytes += (before?.length ?? 0) + (after?.length ?? 0);
    return bytes > MAX_PAGE_BYTES;
  });
  return over === -1 ? rows.length : Math.max(over, 1);
}
