import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { invalidArgument } from "@licet/platform/errors";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenDate, pageTokenUuid, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { type Holder, listLicenses as select } from "../store/licenses.ts";
import type { DB } from "../store/schema.ts";
import { countSeatsUsed } from "../store/seats.ts";
import { licenseToProto } from "./convert.ts";

/** Lists the licenses of a customer or of an e-mail, with how many of their seats are taken. */
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
  const read = async (tx: Transaction<DB>) => {
    const rows = await select(tx, call.tenant, of, after, pageSize + 1);
    const ids = rows.map(({ licenseId }) => licenseId);
    return { rows, used: await countSeatsUsed(tx, call.tenant, ids) };
  };
  const { rows, used } = await inTenant(ctx.db, call.tenant, read, { readOnly: true });
  const { items, nextPageToken } = toPage(rows, pageSize, (row) => [row.createdAt.toISOString(), row.licenseId]);
  const now = ctx.now();
  const licenses = items.map((license) => ({
    ...licenseToProto(license, now),
    seatsUsed: used.get(license.licenseId) ?? 0,
  }));
  return { licenses, nextPageToken };
};
