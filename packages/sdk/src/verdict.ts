import type { Decision, Reason as DecisionReason } from "@licet/decide/decide";
import type { LicenseStatus, LicenseType, LimitWindow } from "@licet/decide/entitlement";
import type { StepSubject } from "@licet/decide/explain";

export type { Decision, LicenseStatus, LicenseType, LimitWindow, StepSubject };

/**
 * Why. As the reasons of the service (docs/reference/decision-reasons.md), and three of the SDK's own: `NO_FACTS`, nothing
 * is known yet, because the client has not been ready; `NOT_COVERED`, this client never knows anything about the customer,
 * whom neither its `customerIds` nor a license file names; `UNKNOWN`, one that only a newer service has.
 */
export type Reason = DecisionReason | "NO_FACTS" | "NOT_COVERED" | "UNKNOWN";

/** Where the facts came from: this process (`SDK`), or what the service says of its own. */
export type VerdictSource = "SDK" | "MEMORY" | "REDIS" | "LICENSING";

/** What is asked. */
export interface Question {
  /** The customer, by the tenant's own identifier; 1 to 255 characters. */
  readonly customerId: string;
  /** The feature's code, such as `egx_access`. */
  readonly feature: string;
  readonly context?: QuestionContext | undefined;
  /** Narrows the question to the licenses of one product; the same as `context.product`. */
  readonly product?: string | undefined;
  /** The consistency token of a write that the answer must have seen. */
  readonly atLeast?: { readonly customerId: string; readonly version: bigint } | undefined;
}

/** What is about to happen: for each metric of a limit the value after the action; `product` narrows the question. */
export type QuestionContext = Readonly<Record<string, string | number | bigint>>;

/** The license that decided. */
export interface VerdictLicense {
  readonly id: string;
  readonly type: LicenseType;
  readonly product: string;
  /** Undefined for a bare license. */
  readonly plan: string | undefined;
  /** Where it stood when the verdict was made. */
  readonly status: LicenseStatus;
  /** When it ends (excluded), in epoch milliseconds; undefined: never. */
  readonly validUntilMs: number | undefined;
  /** When its grace ends, in epoch milliseconds; only while in grace. */
  readonly graceUntilMs: number | undefined;
}

/** A limit that is exceeded. */
export interface LimitViolation {
  readonly metric: string;
  /** The value compared, as a decimal. */
  readonly current: string;
  readonly limit: bigint;
  readonly window: LimitWindow;
  /** Hard limits deny, soft ones are only told. */
  readonly enforcement: "HARD" | "SOFT";
  /** Whether the value is the context's, or what usage metering has counted. */
  readonly source: "CONTEXT" | "USAGE";
}

/** The grant by which the license has the feature. */
export interface VerdictGrant {
  /** When it ends (excluded), in epoch milliseconds; undefined: with the license. */
  readonly expiresAtMs: number | undefined;
  /** A JSON object as text; empty: none. */
  readonly configuration: string;
}

/** The answer. It is frozen, and in `local` and `offline` mode shared by all who ask the same while it holds. */
export interface Verdict {
  readonly customerId: string;
  readonly feature: string;
  readonly decision: Decision;
  /** Whether the customer may use the feature without reserve: `decision` is `ALLOW`. */
  readonly allowed: boolean;
  readonly reason: Reason;
  /** The license that allowed, or the one whose reason is told. */
  readonly license: VerdictLicense | undefined;
  /** What stands against it, a sentence each, for people. */
  readonly violations: readonly string[];
  /** The limits exceeded, hard and soft. */
  readonly limitViolations: readonly LimitViolation[];
  readonly grant: VerdictGrant | undefined;
  /** The customer's entitlement version; 0 where the customer is unknown. */
  readonly version: bigint;
  /**
   * How old the facts may be, in milliseconds: what was committed longer ago is in them. Read from a verdict of `local` or
   * `offline` mode it counts on. Infinity where there are none.
   */
  readonly stalenessMs: number;
  /**
   * How old the counts of usage may be that limits were compared with, in milliseconds; undefined: none was. Read from a
   * verdict of `local` mode it counts on.
   */
  readonly usageStalenessMs: number | undefined;
  /** Whether the facts are too old to rely on, so that the feature's fail mode decided. */
  readonly degraded: boolean;
  readonly source: VerdictSource;
}

/** One thing that was looked at on the way to a verdict. */
export interface ExplanationStep {
  readonly subject: StepSubject;
  /** The license in question; undefined where the step is about none. */
  readonly licenseId: string | undefined;
  /** Whether it spoke for the answer yes. */
  readonly passed: boolean;
  /** What was found, for people. */
  readonly sentence: string;
  /** What was found, for programs. */
  readonly facts: Readonly<Record<string, string>>;
}

/** A verdict, and how it came about. */
export interface Explanation {
  readonly verdict: Verdict;
  /** In the order in which they were taken; 300 at most. */
  readonly steps: readonly ExplanationStep[];
}
