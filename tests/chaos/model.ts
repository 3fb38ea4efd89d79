/** What the workload does and the checker knows: both sides derive it from the same few rules. */

/** Two tenants with the same customer ids, the same sources and the same event ids. */
export const tenants = ["chaos-a", "chaos-b"] as const;

/** Beyond the fence of validation, T, an allowance of a closed feature must have ended, in milliseconds. */
const FENCE_MS = 30_000;
/** For how many seconds the feature with grace may be allowed beyond the fence. */
const GRACE_SECONDS = 8;

const closed = { failMode: { mode: { case: "closed" as const, value: true as const } }, boundMs: FENCE_MS };

/** The features of each product, and the latest that one is allowed after the revocation's acknowledgement, in milliseconds. */
export const features = {
  strict: closed,
  lenient: {
    failMode: { mode: { case: "graceSeconds" as const, value: GRACE_SECONDS } },
    boundMs: FENCE_MS + GRACE_SECONDS * 1_000,
  },
  extra_a: closed,
  extra_b: closed,
} as const;

/** The features that the plan has. */
export const planFeatures = ["strict", "lenient"] as const;

/** The features that the plan lets be granted. */
export const extraFeatures = ["extra_a", "extra_b"] as const;

/** A feature that is asked about. */
export type FeatureName = keyof typeof features;

/** The metric of all usage events, what is included, and the price of one more in US cents. */
export const metric = "calls";
export const INCLUDED_PER_MONTH = 1_000;
export const UNIT_PRICE_DOLLARS = "0.0125";
/** The monthly price of the plan that usage is billed by, in US cents. */
export const BASE_PRICE_CENTS = 4_900;

/** The quantity of an event in quarters: it follows from the tenant and the event's number, so nobody has to write it down. */
export function quarters(tenant: string, number: number): number {
  return 1 + ((number * 7 + tenant.charCodeAt(tenant.length - 1) * 3) % 50);
}

/** An event's quantity as a decimal. */
export function quantityOf(tenant: string, number: number): string {
  return String(quarters(tenant, number) / 4);
}

/** The id of an event, alike in both tenants. */
export function eventId(lane: string, number: number): string {
  return `${lane}-${number}`;
}

/** Customers who use, by number. */
export const USING_CUSTOMERS = 8;

/** The id of a customer who uses. */
export function usingCustomer(number: number): string {
  return `user-${number % USING_CUSTOMERS}`;
}
