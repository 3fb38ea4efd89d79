import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  type ProvisionLicenseRequest,
  ProvisionLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import type { License } from "../domain/license.ts";
import { type BareTerms, bareLicense, planLicense, type Wanted } from "../domain/provision.ts";
import { nextDueAt } from "../domain/schedule.ts";
import { checkFeaturesAndLimits } from "../domain/terms.ts";
import { failure } from "../errors.ts";
import { recordLicenseChange } from "../history.ts";
import { checkRoom } from "../lifecycle.ts";
import { checkFeaturesExist, getPlan, getProduct } from "../store/catalog.ts";
import { raiseEntitlementVersion } from "../store/customers.ts";
import { insertLicense } from "../store/licenses.ts";
import type { DB } from "../store/schema.ts";
import { cycleFromProto, dateFromProto, licenseToProto, limitsFromProto } from "./convert.ts";
import { once } from "./once.ts";

/** Gives a customer a license by a plan, or a bare one. */
export const provisionLicense: Handler<typeof LicensingService, "provisionLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, ProvisionLicenseResponseSchema, async (tx) => {
    const { customerId } = request;
    const version = await raiseEntitlementVersion(tx, call.tenant, customerId);
    await checkRoom(tx, call.tenant, customerId);
    const license = await newLicense(ctx, tx, call.tenant, request);
    if (!(await insertLicense(tx, call.tenant, license, nextDueAt(license, license.createdAt)))) {
      throw failure("LICENSE_EXISTS", `A license ${license.licenseId} exists already.`);
    }
    const { licenseId, createdAt } = license;
    const after = licenseToProto(license, createdAt);
    const cause = LicenseChangeCause.PROVISIONED;
    await recordLicenseChange(ctx, tx, call, { customerId, version, cause, licenseId, effectiveAt: createdAt, after });
    return { license: after, consistencyToken: { customerId, version } };
  });

async function newLicense(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  request: ProvisionLicenseRequest,
): Promise<License> {
  const product = await getProduct(tx, tenant, request.product);
  const validFrom = dateFromProto("valid_from", request.validFrom);
  const validUntil = dateFromProto("valid_until", request.validUntil);
  const billingCycle = cycleFromProto(request.billingCycle);
  const now = ctx.now();
  const wanted: Wanted = {
    licenseId: request.licenseId.toLowerCase() || ctx.newId(),
    customerId: request.customerId,
    product: product.product,
    graceDays: product.graceDays,
    validFrom: validFrom ?? now,
    ...(validUntil && { validUntil }),
    ...(request.seats !== undefined && { seats: request.seats }),
    ...(billingCycle && { billingCycle }),
    autoRenew: request.autoRenew,
    metadata: request.metadata,
    now,
  };
  if (request.plan !== "") {
    return planLicense(wanted, await getPlan(tx, tenant, product.product, request.plan, request.planVersion));
  }
  if (!validUntil) throw invalidArgument("valid_until", "is required when no plan is given");
  const terms: BareTerms = {
    features: request.features.length > 0 ? request.features : ["*"],
    limits: limitsFromProto(request.limits),
  };
  checkFeaturesAndLimits(terms, "");
  await checkFeaturesExist(tx, tenant, product.product, terms.features);
  return bareLicense({ ...wanted, validUntil }, terms);
}
