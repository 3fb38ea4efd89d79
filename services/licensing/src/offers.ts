import type { Transaction } from "kysely";
import { sellAddOns } from "./add-ons.ts";
import type { AddOn, AddOnOrder, HeldAddOn } from "./domain/add-on.ts";
import type { Product } from "./domain/product.ts";
import type { Plan } from "./domain/terms.ts";
import { findAddOns } from "./store/add-ons.ts";
import { checkFeaturesExist, getPlan, getProduct } from "./store/catalog.ts";
import type { DB } from "./store/schema.ts";

/** What can be provisioned, as it is when it is first asked for in a transaction; each thing is read once. */
export interface Offers {
  /** @throws ServiceError NOT_FOUND `PRODUCT_NOT_FOUND` */
  product(product: string): Promise<Product>;
  /** In a version, the latest when it is 0. @throws ServiceError NOT_FOUND `PLAN_NOT_FOUND` */
  plan(product: string, plan: string, version: number): Promise<Plan>;
  /** @throws ServiceError NOT_FOUND `FEATURE_NOT_FOUND` */
  checkFeatures(product: string, features: readonly string[]): Promise<void>;
  /** Add-ons as they are ordered with a plan by a license that holds none. @throws ServiceError as `sellAddOns` */
  sell(plan: Plan, orders: readonly AddOnOrder[]): Promise<readonly HeldAddOn[]>;
  /** Those add-ons of a product that there are in the versions of the orders, by code. */
  addOns(
    product: string,
    orders: readonly Pick<AddOnOrder, "addOn" | "version">[],
  ): Promise<ReadonlyMap<string, AddOn>>;
}

/** The tenant's offers inside a transaction. */
export function offersOf(tx: Transaction<DB>, tenant: string): Offers {
  const products = new Map<string, Promise<Product>>();
  const plans = new Map<string, Promise<Plan>>();
  return {
    product: (product) => remembered(products, product, () => getProduct(tx, tenant, product)),
    plan: (product, plan, version) =>
      remembered(plans, `${product} ${plan} ${version}`, () => getPlan(tx, tenant, product, plan, version)),
    checkFeatures: (product, features) => checkFeaturesExist(tx, tenant, product, features),
    sell: async (plan, orders) =>
      orders.length === 0 ? [] : sellAddOns(tx, tenant, plan, orders, { held: [], at: "add_ons" }),
    addOns: (product, orders) => findAddOns(tx, tenant, product, orders),
  };
}

function remembered<T>(known: Map<string, Promise<T>>, key: string, read: () => Promise<T>): Promise<T> {
  const value = known.get(key) ?? read();
  known.set(key, value);
  return value;
}
