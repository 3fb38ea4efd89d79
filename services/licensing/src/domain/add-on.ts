import { invalidArgument } from "@licet/platform/errors";
import { failure } from "../errors.ts";
import { type Cycle, currencyOf, type LimitWindow, type Plan, type PlanTerms, type Price } from "./terms.ts";

/** What one unit of an add-on adds to a limit. */
export interface AddedLimit {
  metric: string;
  window: LimitWindow;
  perUnit: bigint;
}

/** What an add-on gives: features whatever the number of units, the rest by unit. */
export interface Extras {
  features: readonly string[];
  limits: readonly AddedLimit[];
  seats: number;
}

/** What a unit costs with a plan: a price, one that is agreed when it is sold, or nothing. */
export type Pricing = { kind: "price"; price: Price } | { kind: "agreed"; cycle: Cycle } | { kind: "free" };

/** That an add-on can be had with a plan. */
export interface Offer {
  /** Absent: every plan that no other offer names. */
  plan?: string;
  pricing: Pricing;
}

/** What a version of an add-on gives and costs; never changed once published. */
export interface AddOnTerms extends Extras {
  offers: readonly Offer[];
  /** The most units that a license can hold. */
  maxQuantity: number;
}

/** An add-on in one of its versions. */
export interface AddOn {
  product: string;
  addOn: string;
  name: string;
  version: number;
  latestVersion: number;
  terms: AddOnTerms;
  publishedAt: Date;
  /** Since when no license gets units of it any more. */
  retiredAt?: Date;
  /** Raised by every change of the add-on and by every new version; its text is the etag. */
  revision: bigint;
}

/** Units of an add-on that a license holds, as they were sold: whatever becomes of the add-on, they stay that. */
export interface HeldAddOn extends Extras {
  addOn: string;
  version: number;
  quantity: number;
  /** Of one unit; absent: free. */
  price?: Price;
}

/** How many units of which add-on a license is to hold. */
export interface AddOnOrder {
  addOn: string;
  /** 0: the one that is held, else the latest. */
  version: number;
  quantity: number;
  /** What is agreed for one unit, where the offer wants that. */
  price?: Omit<Price, "cycle">;
}

/**
 * Refuses terms that contradict themselves or the plans that they name: a metric or a plan twice, several currencies, a
 * plan that is none, or what adds to something that the plan leaves unlimited.
 *
 * @param plans - the latest versions of those plans of the product that the offers name, by code
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function checkAddOnTerms(terms: AddOnTerms, product: string, plans: ReadonlyMap<string, Plan>): void {
  const { limits, offers } = terms;
  for (const [index, { metric, window }] of limits.entries()) {
    if (limits.findIndex((other) => other.metric === metric && other.window === window) < index) {
      throw invalidArgument(`terms.limits[${index}]`, `repeats ${metric} ${window}; one of each is allowed`);
    }
  }
  const currencies = new Map<string, number>();
  for (const [index, offer] of offers.entries()) {
    const at = `terms.offers[${index}]`;
    if (offers.findIndex(({ plan }) => plan === offer.plan) < index) {
      throw invalidArgument(`${at}.plan`, `repeats ${offer.plan ?? "the offer for all other plans"}`);
    }
    if (offer.pricing.kind === "price") currencies.set(offer.pricing.price.currency, index);
    if (offer.plan === undefined) continue;
    const plan = plans.get(offer.plan);
    if (!plan) throw invalidArgument(`${at}.plan`, `names ${offer.plan}, which is no plan of product ${product}`);
    checkOffer(terms, offer, plan, at);
  }
  const [first, second] = currencies.keys();
  if (second === undefined) return;
  const field = `terms.offers[${currencies.get(second)}].price.currency`;
  throw invalidArgument(field, `must be one currency for all offers, not ${first} and ${second}`);
}

function checkOffer(terms: AddOnTerms, { pricing }: Offer, plan: Plan, at: string): void {
  const currency = currencyOf(plan.terms);
  if (pricing.kind === "price" && currency !== undefined && pricing.price.currency !== currency) {
    const description = `must be ${currency}, as plan ${plan.plan} is priced, not ${pricing.price.currency}`;
    throw invalidArgument(`${at}.price.currency`, description);
  }
  for (const [index, limit] of terms.limits.entries()) {
    if (canRaise(plan.terms, limit)) continue;
    const description = `${limit.metric} ${limit.window} is unlimited in plan ${plan.plan}, which ${at} names`;
    throw invalidArgument(`terms.limits[${index}].metric`, description);
  }
  if (terms.seats > 0 && plan.terms.seats === undefined) {
    throw invalidArgument("terms.seats", `must be 0: seats are unlimited in plan ${plan.plan}, which ${at} names`);
  }
}

/** Whether there is a maximum that an add-on's units can raise. */
export function canRaise({ limits }: Pick<PlanTerms, "limits">, { metric, window }: AddedLimit): boolean {
  return limits.some((limit) => limit.metric === metric && limit.window === window && limit.maximum !== undefined);
}

/**
 * Units of an add-on as they are sold to a license on a plan.
 *
 * @param held - what the license holds of it
 * @param at - the request's field that holds the order
 * @throws ServiceError INVALID_ARGUMENT that names the field; FAILED_PRECONDITION `ADD_ON_RETIRED`, `ADD_ON_NOT_OFFERED`
 */
export function sell(
  addOn: AddOn,
  order: AddOnOrder,
  { plan, held, at }: { plan: Plan; held: HeldAddOn | undefined; at: string },
): HeldAddOn {
  const { quantity } = order;
  const { features, limits, seats, maxQuantity } = addOn.terms;
  const metadata = { add_on: addOn.addOn };
  if (addOn.retiredAt && quantity > (held?.quantity ?? 0)) {
    const since = addOn.retiredAt.toISOString();
    const most = held ? `; the license can keep its ${held.quantity}` : "";
    throw failure(
      "ADD_ON_RETIRED",
      `Add-on ${addOn.addOn} of ${addOn.product} was retired at ${since}${most}.`,
      metadata,
    );
  }
  if (quantity > maxQuantity) {
    throw invalidArgument(
      `${at}.quantity`,
      `must be at most ${maxQuantity}, the most of ${addOn.addOn} for one license`,
    );
  }
  const offer = offerFor(addOn.terms, plan.plan);
  if (!offer) {
    const message = `Add-on ${addOn.addOn} in version ${addOn.version} can't be had with plan ${plan.plan}.`;
    throw failure("ADD_ON_NOT_OFFERED", message, metadata);
  }
  const price = priceFor(offer.pricing, order, held, at);
  return {
    addOn: addOn.addOn,
    version: addOn.version,
    quantity,
    ...(price && { price }),
    features,
    limits,
    seats,
  };
}

/** How an add-on can be had with a plan; undefined: not at all. */
export function offerFor({ offers }: AddOnTerms, plan: string): Offer | undefined {
  return offers.find((offer) => offer.plan === plan) ?? offers.find((offer) => offer.plan === undefined);
}

function priceFor(pricing: Pricing, order: AddOnOrder, held: HeldAddOn | undefined, at: string): Price | undefined {
  if (pricing.kind === "agreed") {
    if (order.price) return { ...order.price, cycle: pricing.cycle };
    if (held?.price?.cycle === pricing.cycle) return held.price;
    throw invalidArgument(`${at}.price`, "is required: what a unit costs with this plan is agreed when it is sold");
  }
  if (order.price)
    throw invalidArgument(`${at}.price`, "must be absent: the add-on says what a unit costs with this plan");
  return pricing.kind === "price" ? pricing.price : undefined;
}
