import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  type ProvisionLicenseRequest,
  ProvisionLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import type { License } from "../domain/license.ts";
import { checkExtendable, checkPermits, commonStyle, type LicenseKey } from "../domain/license-key.ts";
import { type BareTerms, bareLicense, planLicense, type Wanted } from "../domain/provision.ts";
import { nextDueAt } from "../domain/schedule.ts";
import { checkFeaturesAndLimits } from "../domain/terms.ts";
import { failure } from "../errors.ts";
import { recordLicenseChange } from "../history.ts";
import { checkRoom } from "../lifecycle.ts";
import { type Offers, offersOf } from "../offers.ts";
import { currentSigner, type Signer } from "../signing-keys.ts";
import { getProduct } from "../store/catalog.ts";
import { raiseEntitlementVersion } from "../store/customers.ts";
import { getLicenseKey, insertKeyedLicenses } from "../store/license-keys.ts";
import { insertLicense } from "../store/licenses.ts";
import type { DB } from "../store/schema.ts";
import { cycleFromProto, dateFromProto, licenseToProto, limitsFromProto } from "./convert.ts";
import { addOnOrdersFromProto } from "./convert-add-ons.ts";
import { licenseKeyToProto } from "./convert-keys.ts";
import { loadHeld, newKey } from "./new-key.ts";
import { once } from "./once.ts";

/** Gives a customer a license by a plan, or a bare one, and a key where one is wanted. */
export const provisionLicense: Handler<typeof LicensingService, "provisionLicense", Context> = async (
  ctx,
  call,
  request,
) => {
  const signer = request.key.case === "issueKey" ? await currentSigner(ctx) : undefined;
  const work = async (tx: Transaction<DB>) => {
    const { customerId } = request;
    const version = await raiseEntitlementVersion(tx, call.tenant, customerId);
    await checkRoom(tx, call.tenant, customerId);
    const license = await newLicense(ctx, offersOf(tx, call.tenant), request);
    if (!(await insertLicense(tx, call.tenant, license, nextDueAt(license, license.createdAt)))) {
      throw failure("LICENSE_EXISTS", `A license ${license.licenseId} exists already.`);
    }
    const { licenseId, createdAt } = license;
    const after = licenseToProto(license, createdAt);
    const { key: wanted } = request;
    const key =
      wanted.case === "keyId" ? await extendKey(tx, call.tenant, wanted.value, license, createdAt) : undefined;
    const cause = LicenseChangeCause.PROVISIONED;
    const change = { customerId, version, cause, licenseId, effectiveAt: createdAt, after } as const;
    await recordLicenseChange(ctx, tx, call, { ...change, ...(key && { keyId: key.keyId }) });
    const reply = { license: after, consistencyToken: { customerId, version } };
    if (key) return { ...reply, key: licenseKeyToProto(key, createdAt) };
    return signer ? { ...reply, ...(await issueKeyFor(ctx, tx, call, signer, license)) } : reply;
  };
  return once(ctx, call, request, ProvisionLicenseResponseSchema, work, { secret: signer !== undefined });
};

/** Puts a new license under a key that the customer has. The customer row's lock is held. */
async function extendKey(
  tx: Transaction<DB>,
  tenant: string,
  keyId: string,
  license: License,
  now: Date,
): Promise<LicenseKey> {
  const key = await getLicenseKey(tx, tenant, keyId);
  checkExtendable(key, license, await getProduct(tx, tenant, license.product), now);
  const added = { product: license.product, licenseId: license.licenseId };
  await insertKeyedLicenses(tx, tenant, key.keyId, [added]);
  return { ...key, licenses: [...key.licenses, added] };
}

/** Makes a key for a new license: what the reply says of it. */
async function issueKeyFor(ctx: Context, tx: Transaction<DB>, call: Call, signer: Signer, license: License) {
  const { customerId, licenseId } = license;
  const now = ctx.now();
  checkPermits(license, now);
  const held = await loadHeld(tx, call.tenant, [licenseId]);
  const style = commonStyle(
    [license],
    held.map(({ product }) => product),
  );
  const { key, secret, version } = await newKey(ctx, tx, call, signer, { customerId, style, held });
  return { key: licenseKeyToProto(key, now), keySecret: secret, consistencyToken: { customerId, version } };
}

/**
 * The license that a request asks for, not stored yet.
 *
 * @throws ServiceError as ProvisionLicense of the contract
 */
export async function newLicense(
  ctx: Context,
  offers: Offers,
  request: Omit<ProvisionLicenseRequest, "$typeName" | "$unknown" | "requestId" | "key">,
): Promise<License> {
  const product = await offers.product(request.product);
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
    const plan = await offers.plan(product.product, request.plan, request.planVersion);
    return planLicense(wanted, plan, await offers.sell(plan, addOnOrdersFromProto(request.addOns)));
  }
  if (!validUntil) throw invalidArgument("valid_until", "is required when no plan is given");
  const terms: BareTerms = {
    features: request.features.length > 0 ? request.features : ["*"],
    limits: limitsFromProto(request.limits),
  };
  checkFeaturesAndLimits(terms, "");
  await offers.checkFeatures(product.product, terms.features);
  return bareLicense({ ...wanted, validUntil }, terms);
}
