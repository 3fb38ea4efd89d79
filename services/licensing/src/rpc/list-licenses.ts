import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { invalidArgument } from "@licet/platform/errors";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenDate, pageTokenUuid, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { type Holder, listLicenses as select } from "../store/licenses.ts";
import { licenseToProto } from "./convert.ts";

/** Lists the licenses of a customer or of an e-mail. */
export const listLicenses: Handler<typeof LicensingService, "listLicenses", Context> = async (ctx, call, request) => {
  const { holder } = request;
  if (holder.case === undefined) throw invalidArgument("holder", "needs customer_id or email");
  const of: Holder = holder.case === "email" ? { email: holder.value } : { customerId: holder.value };
  const [createdAt, licenseId] = decodePageToken(request.pageToken, 2) ?? [];
  const after =
    createdAt !== undefined && licenseId !== undefined
      ? { createdAt: pageTokenDate(createdAt), licenseId: pageTokenUuid(licenseId) }
      : undefined;
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(ctx.db, call.tenant, (tx) => select(tx, call.tenant, of, after, pageSize + 1), {
    readOnly: true,
  });
  const { items, nextPageToken } = toPage(rows, pageSize, (row) => [row.createdAt.toISOString(), row.licenseId]);
  const now = ctx.now();
  return { licenses: items.map((license) => licenseToProto(license, now)), nextPageToken };
};
