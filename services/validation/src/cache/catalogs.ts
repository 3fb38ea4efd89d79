import type { Catalog } from "@licet/decide/entitlement";

/** The products of all tenants, in memory. */
export interface CatalogCache {
  /** The products of a tenant by their code; empty for a tenant without any. Another map after each change. */
  of(tenant: string): ReadonlyMap<string, Catalog>;
  /** Takes over a product's catalogue unless an equal or higher version is here. */
  apply(catalog: Catalog): void;
}

const none: ReadonlyMap<string, Catalog> = new Map();

/** Creates an empty cache; the worker fills it. */
export function createCatalogCache(): CatalogCache {
  const tenants = new Map<string, ReadonlyMap<string, Catalog>>();
  return {
    of: (tenant) => tenants.get(tenant) ?? none,
    apply(catalog) {
      const products = tenants.get(catalog.tenant) ?? none;
      const present = products.get(catalog.product);
      if (present !== undefined && present.version >= catalog.version) return;
      tenants.set(catalog.tenant, new Map(products).set(catalog.product, catalog));
    },
  };
}
