import {
  CreateCustomerResponseSchema,
  type CustomerService,
} from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { addCustomers, customerExists } from "../customers.ts";
import { customerToProto } from "./convert.ts";
import { once } from "./once.ts";

/** Adds a customer, whose entitlements begin with version 1: no licenses. */
export const createCustomer: Handler<typeof CustomerService, "createCustomer", Context> = (ctx, call, request) =>
  once(ctx, call, request, CreateCustomerResponseSchema, async (tx) => {
    const customer = {
      customerId: request.customerId || ctx.newId(),
      name: request.name,
      email: request.email,
      domain: request.domain,
      industry: request.industry,
      employeeCount: request.employeeCount,
      createdAt: ctx.now(),
    };
    if (!(await addCustomers(ctx, tx, call, [customer]))) throw customerExists(customer.customerId);
    const { customerId } = customer;
    const version = 1n;
    return { customer: customerToProto(customer), consistencyToken: { customerId, version } };
  });
