import type { BilledTime } from "./billing-months.ts";
import type { Money } from "./money.ts";

/** The span that a price or a bill refers to. */
export type Cycle = "month" | "year";

/** What the use of a metric costs beyond what a month includes. */
export interface UsagePrice {
  readonly metric: string;
  /** How many units each billing month are free. */
  readonly includedPerMonth: bigint;
  /** ISO 4217. */
  readonly currency: string;
  /** Major units for each further unit, as a decimal such as `0.0125`. */
  readonly decimal: string;
}

/** What a plan version costs. */
export interface Prices {
  /** The plan's code. */
  readonly plan: string;
  /** The plan's name for people. */
  readonly planName: string;
  /** The price of one cycle; undefined: free. */
  readonly base: (Money & { readonly cycle: Cycle }) | undefined;
  /** At most one a metric. */
  readonly usage: readonly UsagePrice[];
}

/** Units of an add-on that a license holds. */
export interface PricedAddOn {
  /** The add-on's code. */
  readonly addOn: string;
  readonly quantity: number;
  /** Of one unit, for one cycle. */
  readonly price: Money & { readonly cycle: Cycle };
}

/** A license with what it costs. Bare licenses and those of free plans cost nothing and are none. */
export interface PricedLicense extends BilledTime {
  readonly licenseId: string;
  readonly product: string;
  readonly prices: Prices;
  /** Those that cost something, in the order of the license. */
  readonly addOns: readonly PricedAddOn[];
  /**
   * How often prices are billed; undefined: each in its own cycle. Only a price for a year may be billed in another one.
   */
  readonly billingCycle: Cycle | undefined;
}
