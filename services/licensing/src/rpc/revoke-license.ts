import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  RevokeLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { revoke } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { once } from "./once.ts";

/** Ends a license at once and for good. */
export const revokeLicense: Handler<typeof LicensingService, "revokeLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, RevokeLicenseResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, (license, now) => ({
      cause: LicenseChangeCause.REVOKED,
      license: revoke(license, request.reason, now),
    })),
  );
