import { invalidArgument } from "@licet/platform/errors";
import type { Transaction } from "kysely";
import { type AddOnOrder, type AddOnTerms, checkAddOnTerms, type HeldAddOn, sell } from "./domain/add-on.ts";
import { checkCurrency } from "./domain/effective-terms.ts";
import type { License } from "./domain/license.ts";
import type { Plan } from "./domain/terms.ts";
import { failure } from "./errors.ts";
import { addOnNotFound, findAddOns } from "./store/add-ons.ts";
import { checkFeaturesExist, findPlans, getPlan } from "./store/catalog.ts";
import type { DB } from "./store/schema.ts";

/**
 * The add-ons of a license on a plan, as they are ordered.
 *
 * @param held - what the license holds on that plan: kept as it was sold where the order names no version and no price
 * @param at - the request's field that holds the orders
 * @returns in the order of the orders
 * @throws ServiceError INVALID_ARGUMENT that names the field; NOT_FOUND `ADD_ON_NOT_FOUND`; what `sell` throws
 */
export async function sellAddOns(
  tx: Transaction<DB>,
  tenant: string,
  plan: Plan,
  orders: readonly AddOnOrder[],
  { held, at }: { held: readonly HeldAddOn[]; at: string },
): Promise<HeldAddOn[]> {
  const heldOf = ({ addOn }: AddOnOrder) => held.find((one) => one.addOn === addOn);
  const wanted = orders.map((order) => ({ ...order, version: order.version || (heldOf(order)?.version ?? 0) }));
  const found = await findAddOns(tx, tenant, plan.product, wanted);
  const sold = wanted.map((order, index) => {
    const field = `${at}[${index}]`;
    if (wanted.findIndex(({ addOn }) => addOn === order.addOn) < index) {
      throw invalidArgument(`${field}.add_on`, `repeats ${order.addOn}; one order of each is allowed`);
    }
    const addOn = found.get(order.addOn);
    if (!addOn) throw addOnNotFound(plan.product, order.addOn, order.version);
    return sell(addOn, order, { plan, held: heldOf(order), at: field });
  });
  checkCurrency(sold, plan.terms, at);
  return sold;
}

/**
 * The add-ons of a license as they are ordered, on the plan that it has.
 *
 * @throws ServiceError FAILED_PRECONDITION `ADD_ON_NOT_OFFERED` where it has none; what {@link sellAddOns} throws
 */
export async function sellToLicense(
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  orders: readonly AddOnOrder[],
): Promise<HeldAddOn[]> {
  const [first] = orders;
  if (!first) return [];
  const { plan, product, licenseId } = license;
  if (!plan) {
    const message = `License ${licenseId} has no plan, and add-ons are extras to one; change its features, limits and seats.`;
    throw failure("ADD_ON_NOT_OFFERED", message, { add_on: first.addOn });
  }
  const terms = await getPlan(tx, tenant, product, plan.code, plan.version);
  return sellAddOns(tx, tenant, terms, orders, { held: license.addOns, at: "add_ons" });
}

/**
 * The add-ons of a license that gets a plan version: those ordered, or those that it holds. On another plan they are sold
 * anew in their versions, as prices and offers are a plan's; on another version of its plan they stay as they were sold.
 *
 * @throws ServiceError what {@link sellAddOns} throws
 */
export async function addOnsOnPlan(
  tx: Transaction<DB>,
  tenant: string,
  license: License,
  plan: Plan,
  orders: readonly AddOnOrder[] | undefined,
): Promise<readonly HeldAddOn[]> {
  const samePlan = license.plan?.code === plan.plan;
  if (!orders && samePlan) return license.addOns;
  // What was agreed for one plan is no agreement for another.
  const held = samePlan ? license.addOns : license.addOns.map(({ price: _, ...rest }) => rest);
  const kept = () => license.addOns.map(({ addOn, version, quantity }) => ({ addOn, version, quantity }));
  return sellAddOns(tx, tenant, plan, orders ?? kept(), { held, at: "add_ons.orders" });
}

/**
 * Refuses terms of an add-on that name what the product does not have, or that contradict the plans that they name.
 *
 * @throws ServiceError NOT_FOUND `FEATURE_NOT_FOUND`; INVALID_ARGUMENT that names the field
 */
export async function checkAddOn(
  tx: Transaction<DB>,
  tenant: string,
  product: string,
  terms: AddOnTerms,
): Promise<void> {
  await checkFeaturesExist(tx, tenant, product, terms.features);
  const named = terms.offers.flatMap(({ plan }) => plan ?? []);
  checkAddOnTerms(terms, product, await findPlans(tx, tenant, product, named));
}
