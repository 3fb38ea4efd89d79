import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  PaymentStanding,
  type SetPaymentStandingRequest,
  SetPaymentStandingResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { setPaymentStanding as decide, type PaymentStanding as Standing } from "../domain/lifecycle.ts";
import { changeLicense, type Outcome } from "../lifecycle.ts";
import { dateFromProto } from "./convert.ts";
import { once } from "./once.ts";

const causes: Readonly<Record<Standing["kind"], Outcome["cause"]>> = {
  paid: LicenseChangeCause.REACTIVATED,
  past_due: LicenseChangeCause.PAST_DUE,
  grace: LicenseChangeCause.GRACE_STARTED,
  unpaid: LicenseChangeCause.SUSPENDED,
};

/** Makes of a license what billing knows about its payment. */
export const setPaymentStanding: Handler<typeof LicensingService, "setPaymentStanding", Context> = (
  ctx,
  call,
  request,
) =>
  once(ctx, call, request, SetPaymentStandingResponseSchema, (tx) => {
    const standing = standingFromProto(request);
    return changeLicense(ctx, tx, call, request, (license, now) => ({
      cause: causes[standing.kind],
      license: decide(license, standing, request.reason, now),
    }));
  });

function standingFromProto(request: SetPaymentStandingRequest): Standing {
  switch (request.standing) {
    case PaymentStanding.PAID:
      return { kind: "paid" };
    case PaymentStanding.PAST_DUE:
      return { kind: "past_due" };
    case PaymentStanding.GRACE: {
      const until = dateFromProto("grace_until", request.graceUntil);
      if (until) return { kind: "grace", until };
      throw invalidArgument("grace_until", "is required with PAYMENT_STANDING_GRACE");
    }
    case PaymentStanding.UNPAID:
      return { kind: "unpaid" };
    default:
      throw invalidArgument("standing", "must be PAID, PAST_DUE, GRACE or UNPAID");
  }
}
