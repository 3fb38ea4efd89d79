import type { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { DEFAULT_PAGE_SIZE, decodePageToken, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { listCustomers as select } from "../store/customers.ts";
import { customerToProto } from "./convert.ts";

/** Lists the tenant's customers, or those of an e-mail. */
export const listCustomers: Handler<typeof CustomerService, "listCustomers", Context> = async (ctx, call, request) => {
  const [after = ""] = decodePageToken(request.pageToken, 1) ?? [];
  const pageSize = request.pageSize || DEFAULT_PAGE_SIZE;
  const rows = await inTenant(
    ctx.db,
    call.tenant,
    (tx) => select(tx, call.tenant, request.email, after, pageSize + 1),
    {
      readOnly: true,
    },
  );
  const { items, nextPageToken } = toPage(rows, pageSize, (customer) => [customer.customerId]);
  return { customers: items.map(customerToProto), nextPageToken };
};
