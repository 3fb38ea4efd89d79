import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  ChangePlanResponseSchema,
  type LicensingService,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { addOnsOnPlan } from "../add-ons.ts";
import type { Context } from "../context.ts";
import { changePlan as decide } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { getPlan } from "../store/catalog.ts";
import { cycleFromProto } from "./convert.ts";
import { addOnOrdersFromProto } from "./convert-add-ons.ts";
import { once } from "./once.ts";

/** Puts a license on another plan version of its product. */
export const changePlan: Handler<typeof LicensingService, "changePlan", Context> = (ctx, call, request) =>
  once(ctx, call, request, ChangePlanResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, async (license, now) => {
      const plan = await getPlan(tx, call.tenant, license.product, request.plan, request.planVersion);
      const billingCycle = cycleFromProto(request.billingCycle);
      const orders = request.addOns && addOnOrdersFromProto(request.addOns.orders);
      const wanted = {
        addOns: await addOnsOnPlan(tx, call.tenant, license, plan, orders),
        ...(request.seats !== undefined && { seats: request.seats }),
        ...(billingCycle && { billingCycle }),
      };
      return { cause: LicenseChangeCause.PLAN_CHANGED, license: decide(license, plan, wanted, now) };
    }),
  );
