import {
  type Facts,
  failGraceMs,
  givesByTerms,
  grantHoldsAt,
  isAskedAbout,
  isBroken,
  isCandidate,
  isTooOld,
  judgeAll,
  mayReduce,
  type Question,
} from "./decide.ts";
import type { AddOn, Catalog, Grant, License } from "./entitlement.ts";
import { type ComparedLimit, compareLimits, windowSuffix } from "./limits.ts";
import * as sentences from "./sentences.ts";
import { date, perWindow, quote, subject, terms } from "./sentences.ts";
import { type Standing, standingAt } from "./standing.ts";
import { usageStalenessMs } from "./usage.ts";

/** What a step looked at, in the order in which a license's steps are taken. */
export type StepSubject = "CUSTOMER" | "LICENSE" | "CLOCK" | "PLAN" | "ADD_ON" | "GRANT" | "LIMIT" | "USAGE" | "POLICY";

/** One thing that was looked at. */
export interface Step {
  readonly subject: StepSubject;
  /** The license in question; undefined where the step is about none. */
  readonly licenseId: string | undefined;
  /** Whether it spoke for the answer yes. */
  readonly passed: boolean;
  /** What was found, for people. */
  readonly sentence: string;
  /** What was found, for programs; times in ISO 8601, spans in milliseconds, decimals without exponent. */
  readonly facts: Readonly<Record<string, string>>;
}

/** How an answer came about. */
export interface Explanation {
  /** First of the customer, then of the license that decided, then of the others in the order in which they count. */
  readonly steps: readonly Step[];
  /** How many steps more there were than are told. */
  readonly omittedSteps: number;
}

/** A customer may hold hundreds of licenses; what decided comes first. */
const maxSteps = 300;

/**
 * Tells how `decide` comes to its answer to the same question on the same
 * facts. A license allows where its steps CLOCK and POLICY passed, PLAN or
 * GRANT did, and no LIMIT and no USAGE did not. It lets reduce what is open
 * where it is suspended or expired instead, and POLICY says that it may. Every
 * step is taken, also behind one that did not pass.
 *
 * @throws {InvalidValueError} as `decide`
 */
export function explain(question: Question, facts: Facts, nowMs: number): Explanation {
  const { snapshot, catalogs } = facts;
  const { customerId, feature, product } = question;
  if (snapshot === undefined) {
    return { steps: [step("CUSTOMER", undefined, false, sentences.customerUnknown(customerId))], omittedSteps: 0 };
  }
  const candidates = snapshot.licenses.filter(
    (license) => isAskedAbout(license, product) && isCandidate(license, catalogs.get(license.product), feature),
  );
  const counting = new Set(candidates);
  const aside = snapshot.licenses.filter((license) => !counting.has(license));
  const steps = [
    customerStep(customerId, snapshot.licenses.length, snapshot.version),
    ...judgeAll(candidates, question, facts, nowMs).flatMap(({ license }) => stepsOf(license, question, facts, nowMs)),
    ...aside.map((license) => asideStep(license, question)),
  ];
  return { steps: steps.slice(0, maxSteps), omittedSteps: Math.max(0, steps.length - maxSteps) };
}

function stepsOf(license: License, question: Question, facts: Facts, nowMs: number): Step[] {
  const { customerId, feature } = question;
  const catalog = facts.catalogs.get(license.product);
  const grant = license.grants.get(feature);
  const compared = compareLimits(license, question.values, facts.usage?.levels, nowMs);
  return [
    countedStep(license, catalog, feature),
    clockStep(license, standingAt(license, nowMs), customerId, nowMs),
    planStep(license, catalog, feature),
    ...license.addOns.map((addOn) => addOnStep(license, addOn)),
    ...(grant === undefined ? [] : [grantStep(license, grant, feature, nowMs)]),
    ...compared.map((one) => limitStep(license, one, facts, nowMs)),
    ...notComparedStep(license, compared),
    policyStep(license, catalog, feature, facts.overdueMs),
  ];
}

function step(
  about: StepSubject,
  license: License | undefined,
  passed: boolean,
  sentence: string,
  facts: Readonly<Record<string, string | undefined>> = {},
): Step {
  const known = Object.entries(facts).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return { subject: about, licenseId: license?.id, passed, sentence, facts: Object.fromEntries(known) };
}

function customerStep(customerId: string, licenses: number, version: bigint): Step {
  const held = licenses === 1 ? "1 license" : `${licenses} licenses`;
  const sentence = `Customer ${quote(customerId)} holds ${held}, by entitlement version ${version}.`;
  return step("CUSTOMER", undefined, licenses > 0, sentence, { licenses: `${licenses}`, version: `${version}` });
}

function licenseStep(license: License, passed: boolean, sentence: string, more: Readonly<Record<string, string>> = {}) {
  const { product, type, plan } = license;
  return step("LICENSE", license, passed, sentence, { product, type, plan, ...more });
}

function countedStep(license: License, catalog: Catalog | undefined, feature: string): Step {
  const who = catalog?.features.has(feature) ? "that product has" : "it has itself";
  const sentence = `The license for product ${quote(license.product)} counts: ${who} feature ${quote(feature)}.`;
  return licenseStep(license, true, sentence);
}

/** A license that has no say: of another product than was asked about, or of one without the feature. */
function asideStep(license: License, { product, feature }: Question): Step {
  if (!isAskedAbout(license, product)) {
    const sentence = `The license for product ${quote(license.product)} does not count: the question is about product ${quote(product ?? "")}.`;
    return licenseStep(license, false, sentence, { set_aside_by: "product" });
  }
  const sentence = `The license for product ${quote(license.product)} does not count: that product has no feature ${quote(feature)}.`;
  return licenseStep(license, false, sentence, { set_aside_by: "feature" });
}

function clockStep(license: License, { status, graceUntilMs }: Standing, customerId: string, nowMs: number): Step {
  const passed = status === "ACTIVE" || status === "PAST_DUE" || status === "GRACE";
  return step("CLOCK", license, passed, standingSentence(license, { status, graceUntilMs }, customerId), {
    status,
    stored_status: license.status,
    now: iso(nowMs),
    valid_from: iso(license.validFromMs),
    valid_until: iso(license.validUntilMs),
    grace_until: iso(graceUntilMs),
    cancels_at: iso(license.cancelsAtMs),
    unpaid_grace_until: iso(license.unpaidGraceUntilMs),
    ended_at: iso(license.endedAtMs),
  });
}

function standingSentence(license: License, { status, graceUntilMs }: Standing, customerId: string): string {
  const end = license.validUntilMs === undefined ? "without an end" : `until ${date(license.validUntilMs)}`;
  const whose = subject(customerId, license);
  switch (status) {
    case "REVOKED":
      return sentences.revoked(customerId, license);
    case "SUSPENDED":
      return sentences.suspended(customerId, license);
    case "EXPIRED":
      return sentences.expired(customerId, license);
    case "CANCELLED":
      return sentences.cancelled(customerId, license);
    case "PENDING":
      return sentences.notYetValid(customerId, license);
    case "GRACE":
      return `${whose} is in its grace${graceUntilMs === undefined ? "" : ` until ${date(graceUntilMs)}`}.`;
    case "PAST_DUE":
      return `${whose} is past due, and in force ${end}.`;
    case "ACTIVE":
      return `${whose} is in force ${end}.`;
  }
}

function planStep(license: License, catalog: Catalog | undefined, feature: string): Step {
  const { plan, planVersion, features } = license;
  const passed = givesByTerms(license, catalog, feature);
  const by = features.has(feature) ? feature : "*";
  const version = plan === undefined ? "" : `Version ${planVersion} of `;
  const verb = passed ? "gives" : "does not give";
  const all = passed && by === "*" ? ", as all of the product" : "";
  const whole = `${version}${terms(license)} ${verb} ${quote(feature)}${all}.`;
  return step("PLAN", license, passed, whole.charAt(0).toUpperCase() + whole.slice(1), {
    plan,
    plan_version: plan === undefined ? undefined : `${planVersion}`,
    given_by: passed ? by : undefined,
  });
}

function addOnStep(license: License, { addOn, version, quantity }: AddOn): Step {
  const sentence = `It holds ${quantity} of add-on ${quote(addOn)} in version ${version}; what that gives is in its features and limits.`;
  return step("ADD_ON", license, true, sentence, { add_on: addOn, version: `${version}`, quantity: `${quantity}` });
}

function grantStep(license: License, { expiresAtMs, configuration }: Grant, feature: string, nowMs: number): Step {
  const passed = grantHoldsAt({ expiresAtMs, configuration }, nowMs);
  const end = expiresAtMs === undefined ? "with the license" : `on ${date(expiresAtMs)}`;
  const sentence = `The grant of feature ${quote(feature)} ${passed ? "ends" : "ended"} ${end}.`;
  return step("GRANT", license, passed, sentence, {
    expires_at: iso(expiresAtMs),
    configuration: configuration === "" ? undefined : configuration,
  });
}

function limitStep(license: License, compared: ComparedLimit, { usage }: Facts, nowMs: number): Step {
  const { limit, maximum, current, source, exceeded, resetsAtMs } = compared;
  const { metric, window, enforcement } = limit;
  const facts = { metric, window, enforcement, maximum: `${maximum}`, current, exceeded: `${exceeded}` };
  const sentence = exceeded ? sentences.limitExceeded(compared, license) : withinLimit(compared, license);
  if (source === "CONTEXT") return step("LIMIT", license, !isBroken(compared), sentence, facts);
  return step("USAGE", license, !isBroken(compared), sentence, {
    ...facts,
    resets_at: iso(resetsAtMs),
    staleness_ms: usage && `${usageStalenessMs(usage, nowMs)}`,
  });
}

function withinLimit({ limit, maximum, current, source }: ComparedLimit, license: License): string {
  const per = perWindow[limit.window];
  const [is, where] = source === "CONTEXT" ? ["would be", "within"] : ["is at", "below"];
  return `${quote(limit.metric)} ${is} ${current}${per}, ${where} the limit of ${maximum}${per} in ${terms(license)}.`;
}

/** Limits of which no value is known decide nothing, which nobody should have to guess. */
function notComparedStep(license: License, compared: readonly ComparedLimit[]): Step[] {
  const known = new Set(compared.map(({ limit }) => limit));
  const others = license.limits.filter((limit) => limit.maximum !== undefined && !known.has(limit));
  if (others.length === 0) return [];
  const told = others
    .map(({ metric, maximum, window }) => `${quote(metric)} (${maximum}${perWindow[window]})`)
    .join(", ");
  const sentence = `Limits of which no value is known are not compared: ${told}.`;
  const names = others.map(({ metric, window }) => metric + windowSuffix[window]).join(",");
  return [step("LIMIT", license, true, sentence, { not_compared: names })];
}

function policyStep(license: License, catalog: Catalog | undefined, feature: string, overdueMs: number): Step {
  const graceMs = failGraceMs(catalog, feature);
  const tooOld = isTooOld(graceMs, overdueMs);
  const reducing = mayReduce(catalog, feature);
  const reduce = `Feature ${quote(feature)} may ${reducing ? "" : "not "}be used to reduce what is open when the license is suspended or expired.`;
  const mode = graceMs === 0 ? "not allowed" : `allowed for ${graceMs / 1_000} s`;
  const late = `What is known has been too old for ${Math.ceil(overdueMs / 1_000)} s; from then on the feature is ${mode}.`;
  const sentence = overdueMs < 0 ? `What is known is young enough. ${reduce}` : `${late} ${reduce}`;
  return step("POLICY", license, !tooOld, sentence, {
    reduce_only: `${reducing}`,
    fail_mode: graceMs === 0 ? "closed" : "grace",
    fail_grace_ms: graceMs === 0 ? undefined : `${graceMs}`,
    overdue_ms: overdueMs < 0 ? undefined : `${Math.ceil(overdueMs)}`,
  });
}

function iso(ms: number): string;
function iso(ms: number | undefined): string | undefined;
function iso(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : new Date(ms).toISOString();
}
