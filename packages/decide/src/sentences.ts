import type { Grant, License, LimitWindow } from "./entitlement.ts";
import type { ComparedLimit } from "./limits.ts";
import { graceEndMs } from "./standing.ts";

/** What speaks for and against the use of a feature, in sentences for people. */

/** The span that a value is about, behind the value. */
export const perWindow: Readonly<Record<LimitWindow, string>> = {
  GAUGE: "",
  PER_SECOND: " per second",
  PER_DAY: " per day",
  PER_MONTH: " per month",
  LIFETIME: " over the life of the license",
};

/** No customer of this id is known. */
export function customerUnknown(customerId: string): string {
  return `Customer ${quote(customerId)} is unknown.`;
}

/** The customer holds no license, or none of the product asked for. */
export function holdsNoLicense(customerId: string, product: string | undefined): string {
  const ofProduct = product === undefined ? "" : ` for product ${quote(product)}`;
  return `Customer ${quote(customerId)} holds no license${ofProduct}.`;
}

/** No product has the feature. */
export function featureUnknown(feature: string): string {
  return `No product has a feature ${quote(feature)}.`;
}

/** Products have the feature, but none that is licensed. */
export function notInProducts(feature: string, licenses: readonly License[]): string {
  const products = [...new Set(licenses.map(({ product }) => quote(product)))].join(", ");
  return `Feature ${quote(feature)} is not part of what is licensed: product ${products}.`;
}

/** What is known is too old for the feature, and licensing could not be asked. */
export function factsTooOld(feature: string, customerId: string): string {
  return `What is known about customer ${quote(customerId)} is too old to allow feature ${quote(feature)}, and licensing can't be asked; try again.`;
}

/** The license does not give the feature. */
export function notInPlan(feature: string, customerId: string, license: License): string {
  return `Feature ${quote(feature)} is not in ${terms(license)}, which customer ${quote(customerId)} has.`;
}

/** The license had the feature by a grant that is over; nothing where it had none. */
export function grantExpired(feature: string, grant: Grant | undefined): string[] {
  return grant ? [`The grant of feature ${quote(feature)} ended${on(grant.expiresAtMs)}.`] : [];
}

/** The license was revoked. */
export function revoked(customerId: string, license: License): string {
  return `${subject(customerId, license)} was revoked${on(license.endedAtMs)}.`;
}

/** The license was cancelled. */
export function cancelled(customerId: string, license: License): string {
  return `${subject(customerId, license)} was cancelled${on(license.endedAtMs ?? license.cancelsAtMs)}.`;
}

/** The license is suspended. */
export function suspended(customerId: string, license: License): string {
  return `${subject(customerId, license)} is suspended.`;
}

/** The license and its grace, where it has one, are over. */
export function expired(customerId: string, license: License): string {
  const grace = license.graceDays === 0 ? "" : `; its grace ended${on(graceEndMs(license))}`;
  return `${subject(customerId, license)} expired${on(license.validUntilMs)}${grace}.`;
}

/** The feature may still reduce what is open. */
export function reduceOnly(feature: string): string {
  return `Feature ${quote(feature)} may only be used to reduce what is open.`;
}

/** The license begins later. */
export function notYetValid(customerId: string, license: License): string {
  return `${subject(customerId, license)} begins on ${date(license.validFromMs)}.`;
}

/** A value asked about is above a limit of the license, or nothing is left of what it may use. */
export function limitExceeded(
  { limit, maximum, current, source, resetsAtMs }: ComparedLimit,
  license: License,
): string {
  const { metric, window, enforcement } = limit;
  const per = perWindow[window];
  const kind = enforcement === "SOFT" ? "soft limit" : "limit";
  if (source === "CONTEXT") {
    return `${quote(metric)} would be ${current}${per}, above the ${kind} of ${maximum}${per} in ${terms(license)}.`;
  }
  const anew = resetsAtMs === undefined ? "" : `; the count begins anew${on(resetsAtMs)}`;
  return `${quote(metric)} is used up: ${current} of the ${kind} of ${maximum}${per} in ${terms(license)}${anew}.`;
}

/** The license, as the beginning of a sentence. */
export function subject(customerId: string, license: License): string {
  const plan = license.plan === undefined ? "" : `, plan ${quote(license.plan)},`;
  return `The license of customer ${quote(customerId)} for product ${quote(license.product)}${plan}`;
}

/** What gives and bounds features: the plan, or the license itself. */
export function terms(license: License): string {
  const product = `product ${quote(license.product)}`;
  return license.plan === undefined ? `the license for ${product}` : `plan ${quote(license.plan)} of ${product}`;
}

function on(ms: number | undefined): string {
  return ms === undefined ? "" : ` on ${date(ms)}`;
}

/** A moment, for people. */
export function date(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** Ids come from tenants and may hold anything: quoted, they can't be taken for the sentence. */
export function quote(text: string): string {
  return JSON.stringify(text);
}
