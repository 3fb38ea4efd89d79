import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  ExtendTrialResponseSchema,
  type LicensingService,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { extendTrial as decide } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { once } from "./once.ts";

/** Gives a trial some days more. */
export const extendTrial: Handler<typeof LicensingService, "extendTrial", Context> = (ctx, call, request) =>
  once(ctx, call, request, ExtendTrialResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, (license, now) => ({
      cause: LicenseChangeCause.TRIAL_EXTENDED,
      license: decide(license, request.days, now),
    })),
  );
