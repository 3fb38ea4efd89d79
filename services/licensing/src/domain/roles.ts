/** The role of an API key: a named set of scopes. */
export type Role = "admin" | "brand" | "product" | "service" | "viewer" | "operator";

const reads = ["catalog:read", "customers:read", "licenses:read", "usage:read", "invoices:read"];

/** The scopes of each role. Operators belong to the platform and see no tenant's data. */
export const scopesOf: Readonly<Record<Role, readonly string[]>> = {
  admin: [
    ...reads,
    "catalog:write",
    "customers:write",
    "licenses:write",
    "licenses:reveal",
    "usage:write",
    "features:check",
    "keys:read",
    "keys:write",
  ],
  brand: [...reads, "customers:write", "licenses:write", "features:check"],
  product: ["features:check", "usage:write"],
  service: ["catalog:read", "customers:read", "licenses:read", "usage:read", "usage:write", "features:check"],
  viewer: [...reads, "keys:read", "features:check"],
  operator: ["platform:admin", "keys:read", "keys:write"],
};
