import {
  CreateCustomerResponseSchema,
  type CustomerService,
} from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { recordLicenseChange } from "../history.ts";
import { insertCustomer } from "../store/customers.ts";
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
    if (!(await insertCustomer(tx, call.tenant, customer))) {
      throw failure("CUSTOMER_EXISTS", `A customer ${customer.customerId} exists already.`);
    }
    const { customerId } = customer;
    const version = 1n;
    const cause = LicenseChangeCause.CUSTOMER_CREATED;
    await recordLicenseChange(ctx, tx, call, { customerId, version, cause, effectiveAt: customer.createdAt });
    return { customer: customerToProto(customer), consistencyToken: { customerId, version } };
  });
