import { describe, expect, test } from "@jest/globals";
import type { Catalog } from "@licet/decide/entitlement";
import fc from "fast-check";
import { createCatalogCache } from "./catalogs.ts";

function catalog(overrides: Partial<Catalog> = {}): Catalog {
  return { tenant: "tradsys", product: "trading", version: 1n, features: new Map(), ...overrides };
}

describe("createCatalogCache", () => {
  test("keeps the products of each tenant apart", () => {
    const cache = createCatalogCache();
    const own = catalog();
    const other = catalog({ tenant: "nectar" });
    cache.apply(own);
    cache.apply(other);
    expect(cache.of("tradsys").get("trading")).toBe(own);
    expect(cache.of("nectar").get("trading")).toBe(other);
    expect(cache.of("rankmath").size).toBe(0);
  });

  test("takes a higher version over, and no other", () => {
    const cache = createCatalogCache();
    const second = catalog({ version: 2n });
    cache.apply(second);
    cache.apply(catalog({ version: 1n }));
    cache.apply(catalog({ version: 2n }));
    expect(cache.of("tradsys").get("trading")).toBe(second);
    const third = catalog({ version: 3n });
    cache.apply(third);
    expect(cache.of("tradsys").get("trading")).toBe(third);
  });

  test("ends with the highest version, in whatever order and however often they come", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), (versions) => {
        const cache = createCatalogCache();
        for (const [index, version] of versions.entries()) {
          cache.apply(catalog({ version: BigInt(version) }));
          const highest = BigInt(Math.max(...versions.slice(0, index + 1)));
          expect(cache.of("tradsys").get("trading")?.version).toBe(highest);
        }
      }),
    );
  });
});
