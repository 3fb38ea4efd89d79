import type { Transaction } from "kysely";
import type { Product } from "../domain/product.ts";
import type { Plan } from "../domain/terms.ts";
import { checkFeaturesExist, getPlan, getProduct } from "./catalog.ts";
import type { DB } from "./schema.ts";

/** What can be provisioned, as it is when it is first asked for in a transaction; each thing is read once. */
export interface Offers {
  /** @throws ServiceError NOT_FOUND `PRODUCT_NOT_FOUND` */
  product(product: string): Promise<Product>;
  /** In a version, the latest when it is 0. @throws ServiceError NOT_FOUND `PLAN_NOT_FOUND` */
  plan(product: string, plan: string, version: number): Promise<Plan>;
  /** @throws ServiceError NOT_FOUND `FEATURE_NOT_FOUND` */
  checkFeatures(product: string, features: readonly string[]): Promise<void>;
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
  };
}

function remembered<T>(known: Map<string, Promise<T>>, key: string, read: () => Promise<T>): Promise<T> {
  const value = known.get(key) ?? read();
  known.set(key, value);
  return value;
}
