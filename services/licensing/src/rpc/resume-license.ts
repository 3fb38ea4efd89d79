import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  ResumeLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { changeStatus } from "./change-status.ts";
import { once } from "./once.ts";

/** Puts a suspended license in force again. */
export const resumeLicense: Handler<typeof LicensingService, "resumeLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, ResumeLicenseResponseSchema, (tx) =>
    changeStatus(ctx, tx, call, {
      licenseId: request.licenseId,
      to: "active",
      cause: LicenseChangeCause.RESUMED,
      reason: request.reason,
    }),
  );
