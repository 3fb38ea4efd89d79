// The words of this file are the names of the contract's enum values.

/** Where a license stands; product.md has the table of what follows from each. */
export type LicenseStatus =
  | "PENDING"
  | "ACTIVE"
  | "PAST_DUE"
  | "GRACE"
  | "SUSPENDED"
  | "EXPIRED"
  | "CANCELLED"
  | "REVOKED";

/** The kind of deal. */
export type LicenseType = "TRIAL" | "STANDARD" | "ENTERPRISE" | "CUSTOM";

/** The span over which a limit's metric counts. */
export type LimitWindow = "GAUGE" | "PER_SECOND" | "PER_DAY" | "PER_MONTH" | "LIFETIME";

/** A bound on a metric. */
export interface Limit {
  readonly metric: string;
  /** The highest value allowed; undefined: unlimited. */
  readonly maximum: bigint | undefined;
  readonly window: LimitWindow;
  /** Above a hard limit the answer is no; a soft one is only told. */
  readonly enforcement: "HARD" | "SOFT";
}

/** A window in which use is counted; a gauge and a rate are known to the caller only. */
export type CountedWindow = Exclude<LimitWindow, "GAUGE" | "PER_SECOND">;

/** How much was used of a metric in one window. */
export interface UsageLevel {
  readonly window: CountedWindow;
  /** The license whose limits it counts against; undefined: those of every license of the customer. */
  readonly licenseId: string | undefined;
  /** When the UTC day or month began that it is about; undefined for LIFETIME. */
  readonly windowStartMs: number | undefined;
  /** A decimal that is not negative, without exponent. */
  readonly used: string;
}

/** By metric, at most one of a window and license. What is not there was not used. */
export type UsageLevels = ReadonlyMap<string, readonly UsageLevel[]>;

/** What a customer has used so far of what limits count. */
export interface Usage {
  /** The same object as long as nothing in it changes. */
  readonly levels: UsageLevels;
  /** What was accepted before is counted, unless it is quarantined; epoch milliseconds by the decider's clock. */
  readonly asOfMs: number;
}

/** An add-on that a license holds; what it gives is in the license's features and limits. */
export interface AddOn {
  readonly addOn: string;
  /** The version that was sold. */
  readonly version: number;
  /** How many units. */
  readonly quantity: number;
}

/** A feature that is switched on for one license beyond its plan. */
export interface Grant {
  /** The first moment it no longer holds; undefined: it ends with the license. */
  readonly expiresAtMs: number | undefined;
  /** A JSON object as text; empty: none. */
  readonly configuration: string;
}

/** A license as it is stored; where it stands now follows from it and the clock, see `standingAt`. */
export interface License {
  readonly id: string;
  readonly type: LicenseType;
  readonly product: string;
  /** The plan; undefined for a bare license. */
  readonly plan: string | undefined;
  /** The plan's version; 0 for a bare license. */
  readonly planVersion: number;
  readonly status: LicenseStatus;
  /** The codes of the features that it gives; `*` stands for all of the product. */
  readonly features: ReadonlySet<string>;
  /** By feature; those that have expired may still be there. */
  readonly grants: ReadonlyMap<string, Grant>;
  readonly limits: readonly Limit[];
  readonly addOns: readonly AddOn[];
  /** Epoch milliseconds, as all times here. */
  readonly validFromMs: number;
  /** The first moment it is no longer valid; undefined: it has no end. */
  readonly validUntilMs: number | undefined;
  /** How many days after its end it stays in grace. */
  readonly graceDays: number;
  /** When it was revoked or cancelled. */
  readonly endedAtMs: number | undefined;
  /** When a cancellation that was asked for takes effect. */
  readonly cancelsAtMs?: number | undefined;
  /** When the grace ends that billing gave for what is past due. */
  readonly unpaidGraceUntilMs?: number | undefined;
}

/** All that holds for one customer. */
export interface Snapshot {
  readonly tenant: string;
  readonly customerId: string;
  /** The customer's entitlement version. */
  readonly version: bigint;
  /** Oldest first. */
  readonly licenses: readonly License[];
}

/** The features of one product: what `*` means. */
export interface Catalog {
  readonly tenant: string;
  readonly product: string;
  readonly version: bigint;
  readonly features: ReadonlyMap<string, CatalogFeature>;
}

/** How a feature behaves. */
export interface CatalogFeature {
  /** Whether a suspended or expired license may still reduce what is open. */
  readonly reduceOnly: boolean;
  /** How many milliseconds longer it stays allowed once facts are too old; 0: not at all (`closed`). */
  readonly failGraceMs: number;
}

/** The grace of a feature of which no catalogue says anything else (product.md, "Availability over strictness"). */
export const DEFAULT_FAIL_GRACE_MS = 300_000;
