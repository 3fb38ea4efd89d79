import type { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenDate, pageTokenUuid, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { type KeyHolder, listLicenseKeys } from "../store/license-keys.ts";
import { licenseKeyToProto } from "./convert-keys.ts";

/** Lists the keys of a customer or of a license. */
export const listKeys: Handler<typeof KeyService, "listKeys", Context> = async (ctx, call, request) => {
  const [issuedAt, keyId] = decodePageToken(request.pageToken, 2) ?? [];
  const after =
    issuedAt !== undefined && keyId !== undefined
      ? { issuedAt: pageTokenDate(issuedAt), keyId: pageTokenUuid(keyId) }
      : undefined;
  const { case: by, value = "" } = request.holder;
  const holder: KeyHolder = by === "licenseId" ? { licenseId: value } : { customerId: value };
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(
    ctx.db,
    call.tenant,
    (tx) => listLicenseKeys(tx, call.tenant, holder, after, pageSize + 1),
    { readOnly: true },
  );
  const { items, nextPageToken } = toPage(rows, pageSize, (key) => [key.issuedAt.toISOString(), key.keyId]);
  const now = ctx.now();
  return { keys: items.map((key) => licenseKeyToProto(key, now)), nextPageToken };
};
