import type { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getCustomer as load } from "../store/customers.ts";
import { customerToProto } from "./convert.ts";

/** Returns a customer. */
export const getCustomer: Handler<typeof CustomerService, "getCustomer", Context> = async (ctx, call, request) => {
  const customer = await inTenant(ctx.db, call.tenant, (tx) => load(tx, call.tenant, request.customerId), {
    readOnly: true,
  });
  return { customer: customerToProto(customer) };
};
