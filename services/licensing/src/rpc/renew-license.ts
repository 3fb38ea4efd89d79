import {
  type LicensingService,
  RenewFrom,
  type RenewLicenseRequest,
  RenewLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { renewing } from "../decisions.ts";
import type { NewEnd } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { dateFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Gives a license a new end. */
export const renewLicense: Handler<typeof LicensingService, "renewLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, RenewLicenseResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, renewing(tx, call.tenant, endFromProto(request, ""))),
  );

/**
 * The end that a request wants.
 *
 * @param at - the path of what holds it, such as `renew.`
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function endFromProto({ end, termDays }: Pick<RenewLicenseRequest, "end" | "termDays">, at: string): NewEnd {
  if (end.case === "termFrom") return { from: end.value === RenewFrom.NOW ? "now" : "expiry", days: termDays };
  if (termDays !== 0) throw invalidArgument(`${at}term_days`, "must be 0 with valid_until");
  const until = dateFromProto(`${at}valid_until`, end.value);
  if (!until) throw invalidArgument(`${at}end`, "needs valid_until or term_from");
  return { until };
}
