import {
  type LicensingService,
  SuspendLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { suspending } from "../decisions.ts";
import { changeLicense } from "../lifecycle.ts";
import { once } from "./once.ts";

/** Stops a license until it is resumed. */
export const suspendLicense: Handler<typeof LicensingService, "suspendLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, SuspendLicenseResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, suspending(request.reason)),
  );
