import { invalidArgument } from "@licet/platform/errors";
import { canRaise, type HeldAddOn } from "./add-on.ts";
import { currencyOf, type Limit, type PlanTerms } from "./terms.ts";

/** What a license gives: by its plan or its own terms alone, or with all that comes on top. */
export interface GivenTerms {
  features: readonly string[];
  limits: readonly Limit[];
  /** Absent: unlimited. */
  seats?: number;
}

/** What a maximum can be at most, on the wire and in the database. */
const MAX_LIMIT = 2n ** 63n - 1n;
const MAX_SEATS = 2 ** 31 - 1;

/**
 * What a license gives in effect: the one place where its own or its plan's terms and its add-ons become features, limits
 * and seats. Features are joined; units raise the maximum of the limit of their metric and window, and the seats. What is
 * unlimited stays so, and nothing is ever lowered. The order of add-ons does not matter.
 */
export function effectiveTerms(base: GivenTerms, addOns: readonly HeldAddOn[]): GivenTerms {
  if (addOns.length === 0) return base;
  const { seats } = base;
  return {
    features: base.features.includes("*")
      ? base.features
      : [...new Set([...base.features, ...addOns.flatMap(({ features }) => features)])],
    limits: base.limits.map((limit) => raised(limit, addOns)),
    ...(seats !== undefined && { seats: seats + addedSeats(addOns) }),
  };
}

function raised(limit: Limit, addOns: readonly HeldAddOn[]): Limit {
  const { metric, window, maximum } = limit;
  if (maximum === undefined) return limit;
  const added = addOns.flatMap(({ quantity, limits }) =>
    limits
      .filter((one) => one.metric === metric && one.window === window)
      .map(({ perUnit }) => perUnit * BigInt(quantity)),
  );
  return { ...limit, maximum: added.reduce((sum, units) => sum + units, maximum) };
}

function addedSeats(addOns: readonly HeldAddOn[]): number {
  return addOns.reduce((sum, { quantity, seats }) => sum + quantity * seats, 0);
}

/** A license's own or its plan's terms, its add-ons by code, and what they come to: to be spread into the license. */
export function withAddOns(base: GivenTerms, addOns: readonly HeldAddOn[]) {
  return {
    ...effectiveTerms(base, addOns),
    base,
    addOns: addOns.toSorted((a, b) => (a.addOn < b.addOn ? -1 : 1)),
  };
}

/**
 * Refuses add-ons in another currency than their plan's, or in several.
 *
 * @param at - the request's field that holds the add-ons
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function checkCurrency(addOns: readonly HeldAddOn[], terms: PlanTerms, at: string): void {
  let currency = currencyOf(terms);
  for (const [index, { price }] of addOns.entries()) {
    currency ??= price?.currency;
    if (!price || price.currency === currency) continue;
    const description = `must be ${currency}, as the plan or what comes before it is priced, not ${price.currency}`;
    throw invalidArgument(`${at}[${index}].price.currency`, description);
  }
}

/**
 * Refuses add-ons that add to something that is unlimited, or more than a number can hold.
 *
 * @param at - the request's field that holds the add-ons
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function checkAddOns(base: GivenTerms, addOns: readonly HeldAddOn[], at: string): void {
  for (const [index, { addOn, limits, seats }] of addOns.entries()) {
    const field = `${at}[${index}]`;
    const unlimited = limits.find((limit) => !canRaise(base, limit));
    if (unlimited) {
      const description = `${addOn} adds to ${unlimited.metric} ${unlimited.window}, which the license leaves unlimited`;
      throw invalidArgument(`${field}.add_on`, description);
    }
    if (seats > 0 && base.seats === undefined) {
      throw invalidArgument(`${field}.add_on`, `${addOn} adds seats, which the license has without limit`);
    }
    const sum = effectiveTerms(base, addOns.slice(0, index + 1));
    if (sum.limits.some(({ maximum = 0n }) => maximum > MAX_LIMIT) || (sum.seats ?? 0) > MAX_SEATS) {
      throw invalidArgument(`${field}.quantity`, `must be lower: the license's limits or seats would be too large`);
    }
  }
}
