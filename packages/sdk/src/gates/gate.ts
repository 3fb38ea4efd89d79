/** What the gates of all frameworks have in common: whom and what they ask, and what follows from the answer. */
import { LicetError } from "../errors.ts";
import type { QuestionContext, Verdict } from "../verdict.ts";

/** What a gate asks: any client of this package. */
export interface Checker {
  check(customerId: string, feature: string, context?: QuestionContext): Verdict | Promise<Verdict>;
}

/** How a gate knows what it needs of a request. What these functions throw is the framework's to deal with. */
export interface GateOptions<Request> {
  readonly licet: Checker;
  /** For which customer a request is made, from what has authenticated it; undefined or empty: for none, and it is refused. */
  readonly customerId: (request: Request) => string | undefined | Promise<string | undefined>;
  /**
   * What becomes of a request when nobody answers: `deny` (when absent) turns it away with 503 or UNAVAILABLE, `allow` lets
   * it through without a verdict. An answer that a feature's fail mode gave is an answer, and so is that the client does not
   * cover the customer, of whom it would never know more.
   */
  readonly whenUnanswered?: "deny" | "allow";
}

/** What a request asks for beyond its feature. */
export interface FeatureOptions<Request> {
  /** What is about to happen, for the limits: the value of each metric after the action. */
  readonly context?: (request: Request) => QuestionContext | Promise<QuestionContext>;
  /** Whether a request only reduces what is open (closes a position, exports data): then ALLOW_REDUCE_ONLY lets it through. */
  readonly reduces?: (request: Request) => boolean;
}

/** One question of a gate. */
export interface GateQuestion<Request> extends FeatureOptions<Request> {
  readonly feature: string;
}

/** A problem body (RFC 9457), as `application/problem+json`. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: 400 | 403 | 503;
  /** What stands against it, in sentences. */
  readonly detail: string;
  readonly error: "feature_not_licensed" | "customer_unknown" | "invalid_context" | "license_check_failed";
  readonly feature: string;
  /** A reason of a verdict, `CUSTOMER_UNKNOWN`, or that of the error. */
  readonly reason: string;
  readonly decision?: Verdict["decision"];
  readonly violations?: readonly string[];
  /** Limits exceeded; numbers as decimals in strings. */
  readonly limits?: readonly {
    readonly metric: string;
    readonly current: string;
    readonly limit: string;
    readonly window: string;
    readonly enforcement: string;
  }[];
}

/** What is answered with a 503 in `retry-after`, in seconds. */
export const RETRY_AFTER_SECONDS = 1;

const titles = {
  feature_not_licensed: "The license does not allow this.",
  customer_unknown: "It is not known for which customer this is.",
  invalid_context: "The request has a value that a limit can't be compared with.",
  license_check_failed: "It can't be told at the moment whether the license allows this.",
} as const;

const verdicts = new WeakMap<object, Verdict>();

/**
 * The verdict by which a gate let a request through, with its license; of several gates the last one's. Undefined where none
 * has, or `whenUnanswered` did.
 *
 * @param request the request of Express or Fastify; of a gRPC call its `metadata`
 */
export function verdictOf(request: object): Verdict | undefined {
  return verdicts.get(request);
}

/**
 * Asks whether a request may pass.
 *
 * @param holder what {@link verdictOf} will be asked with
 * @returns undefined when it may; otherwise why not.
 */
export async function examine<Request>(
  options: GateOptions<Request>,
  question: GateQuestion<Request>,
  request: Request,
  holder: object,
): Promise<Problem | undefined> {
  const { feature, context, reduces } = question;
  const customerId = await options.customerId(request);
  if (customerId === undefined || customerId === "") {
    return problem("customer_unknown", feature, "CUSTOMER_UNKNOWN", "The request names no customer.");
  }
  const asked = await context?.(request);
  let verdict: Verdict;
  try {
    verdict = await options.licet.check(customerId, feature, asked);
  } catch (error) {
    if (!(error instanceof LicetError)) throw error;
    if (error.code === "INVALID_ARGUMENT") return problem("invalid_context", feature, error.reason, error.message);
    return unanswered(options, feature, error.reason, error.message);
  }
  if (verdict.reason === "NO_FACTS") {
    return unanswered(options, feature, verdict.reason, "The client has no facts yet.");
  }
  if (verdict.allowed || (verdict.decision === "ALLOW_REDUCE_ONLY" && reduces?.(request) === true)) {
    verdicts.set(holder, verdict);
    return undefined;
  }
  return refusal(verdict);
}

function unanswered(
  { whenUnanswered = "deny" }: Pick<GateOptions<never>, "whenUnanswered">,
  feature: string,
  reason: string,
  detail: string,
): Problem | undefined {
  return whenUnanswered === "allow" ? undefined : problem("license_check_failed", feature, reason, detail);
}

function refusal({ feature, reason, decision, violations, limitViolations }: Verdict): Problem {
  // It would be allowed if what is known were younger: asking again helps.
  const error = reason === "FACTS_TOO_OLD" ? "license_check_failed" : "feature_not_licensed";
  const detail = violations.join(" ") || `Feature "${feature}" is not allowed: ${reason}.`;
  const limits = limitViolations.map(({ metric, current, limit, window, enforcement }) => {
    return { metric, current, limit: String(limit), window, enforcement };
  });
  return { ...problem(error, feature, reason, detail), decision, violations, limits };
}

const statuses = {
  feature_not_licensed: 403,
  customer_unknown: 403,
  invalid_context: 400,
  license_check_failed: 503,
} as const;

function problem(error: Problem["error"], feature: string, reason: string, detail: string): Problem {
  const type = `https://licet.dev/problems/${error.replaceAll("_", "-")}`;
  return { type, title: titles[error], status: statuses[error], detail, error, feature, reason };
}
