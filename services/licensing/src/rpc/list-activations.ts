import type { ActivationService } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, pageTokenUuid, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getLicense } from "../store/licenses.ts";
import { readSeats, listActivations as select } from "../store/seats.ts";
import { dateFromProto } from "./convert.ts";
import { activationToProto, seatsToProto } from "./convert-seats.ts";

/** Lists who holds the seats of a license. */
export const listActivations: Handler<typeof ActivationService, "listActivations", Context> = async (
  ctx,
  call,
  request,
) => {
  const { tenant } = call;
  const [id] = decodePageToken(request.pageToken, 1) ?? [];
  const after = id === undefined ? undefined : pageTokenUuid(id);
  const lastSeenBefore = dateFromProto("last_seen_before", request.lastSeenBefore);
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const { rows, seats } = await inTenant(
    ctx.db,
    tenant,
    async (tx) => {
      const license = await getLicense(tx, tenant, request.licenseId);
      const page = { after, lastSeenBefore, limit: pageSize + 1 };
      const rows = await select(tx, tenant, license.licenseId, page);
      return { rows, seats: await readSeats(tx, tenant, license) };
    },
    { readOnly: true },
  );
  const { items, nextPageToken } = toPage(rows, pageSize, (row) => [row.activationId]);
  return { activations: items.map(activationToProto), nextPageToken, seats: seatsToProto(seats) };
};
