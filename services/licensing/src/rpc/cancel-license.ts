import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  CancelLicenseResponseSchema,
  type LicensingService,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { cancel } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { once } from "./once.ts";

/** Ends a license by the customer's will: now, or at its end. */
export const cancelLicense: Handler<typeof LicensingService, "cancelLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, CancelLicenseResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, (before, now) => {
      const license = cancel(before, request.atEnd, request.reason, now);
      const cause = license.cancellation ? LicenseChangeCause.CANCELLATION_SCHEDULED : LicenseChangeCause.CANCELLED;
      return { cause, license };
    }),
  );
