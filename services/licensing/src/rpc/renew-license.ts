import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  RenewFrom,
  type RenewLicenseRequest,
  RenewLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { type NewEnd, renew } from "../domain/lifecycle.ts";
import { changeLicense } from "../lifecycle.ts";
import { getPlan } from "../store/catalog.ts";
import { dateFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Gives a license a new end. */
export const renewLicense: Handler<typeof LicensingService, "renewLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, RenewLicenseResponseSchema, (tx) =>
    changeLicense(ctx, tx, call, request, async (license, now) => {
      const { plan, product } = license;
      const terms = plan && (await getPlan(tx, call.tenant, product, plan.code, plan.version)).terms;
      return { cause: LicenseChangeCause.RENEWED, license: renew(license, endFromProto(request), terms, now) };
    }),
  );

function endFromProto({ end, termDays }: RenewLicenseRequest): NewEnd {
  if (end.case === "termFrom") return { from: end.value === RenewFrom.NOW ? "now" : "expiry", days: termDays };
  if (termDays !== 0) throw invalidArgument("term_days", "must be 0 with valid_until");
  const until = dateFromProto("valid_until", end.value);
  if (!until) throw invalidArgument("end", "needs valid_until or term_from");
  return { until };
}
