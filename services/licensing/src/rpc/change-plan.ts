import {
  ChangePlanResponseSchema,
  type LicensingService,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { changingPlan } from "../decisions.ts";
import { changeLicense } from "../lifecycle.ts";
import { cycleFromProto } from "./convert.ts";
import { addOnOrdersFromProto } from "./convert-add-ons.ts";
import { once } from "./once.ts";

/** Puts a license on another plan version of its product. */
export const changePlan: Handler<typeof LicensingService, "changePlan", Context> = (ctx, call, request) =>
  once(ctx, call, request, ChangePlanResponseSchema, (tx) => {
    const billingCycle = cycleFromProto(request.billingCycle);
    const wanted = {
      plan: request.plan,
      planVersion: request.planVersion,
      ...(request.addOns && { orders: addOnOrdersFromProto(request.addOns.orders) }),
      ...(request.seats !== undefined && { seats: request.seats }),
      ...(billingCycle && { billingCycle }),
    };
    return changeLicense(ctx, tx, call, request, changingPlan(tx, call.tenant, wanted));
  });
