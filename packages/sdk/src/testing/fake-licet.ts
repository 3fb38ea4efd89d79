import { questionsOf } from "../deciding.ts";
import { clientClosed } from "../errors.ts";
import type { LocalLicet, State } from "../licet.ts";
import { toQuestion } from "../question.ts";
import { createStates } from "../state.ts";
import type { QuestionContext, Verdict } from "../verdict.ts";

/** What is answered: yes, no, a verdict's own words, or whatever follows from the context. */
export type FakeAnswer = boolean | Partial<Verdict> | ((context: QuestionContext) => boolean | Partial<Verdict>);

/** Answers by customer and feature; `*` as either stands for all that is not named. What nothing answers is denied. */
export type FakeScript = Readonly<Record<string, Readonly<Record<string, FakeAnswer>>>>;

/** A client for tests that answers as it is told. */
export interface FakeLicet extends LocalLicet {
  /** The questions so far, oldest first; the last 10,000. */
  readonly asked: readonly {
    readonly customerId: string;
    readonly feature: string;
    readonly context: QuestionContext;
  }[];
  /** Answers otherwise from now on. */
  answer(customerId: string, feature: string, answer: FakeAnswer): void;
  /** Goes to a state, as an outage would. */
  enter(state: State): void;
}

const MAX_ASKED = 10_000;

/** Creates a client that answers by a script, without server, files or clock: `fakeLicet({ "nile-brokers": { egx_access: true } })`. */
export function fakeLicet(script: FakeScript = {}): FakeLicet {
  const states = createStates();
  states.enter("READY");
  const answers = new Map(
    Object.entries(script).map(([customerId, features]) => [customerId, new Map(Object.entries(features))]),
  );
  const asked: FakeLicet["asked"][number][] = [];
  const find = (customerId: string, feature: string): FakeAnswer => {
    const [own, all] = [answers.get(customerId), answers.get("*")];
    return own?.get(feature) ?? own?.get("*") ?? all?.get(feature) ?? all?.get("*") ?? false;
  };

  const check: LocalLicet["check"] = (customerId, feature, context = {}) => {
    if (states.closed) throw clientClosed();
    toQuestion(customerId, feature, context);
    if (asked.length === MAX_ASKED) asked.shift();
    asked.push({ customerId, feature, context });
    const answer = find(customerId, feature);
    return toVerdict(customerId, feature, typeof answer === "function" ? answer(context) : answer);
  };

  return {
    mode: "local",
    ...questionsOf({ check, explain: (...question) => ({ verdict: check(...question), steps: [] }) }),
    asked,
    answer(customerId, feature, answer) {
      const own = answers.get(customerId) ?? new Map<string, FakeAnswer>();
      answers.set(customerId, own.set(feature, answer));
    },
    enter: states.enter,
    get state() {
      return states.state;
    },
    on: states.on,
    ready: states.ready,
    async close() {
      states.close();
    },
  };
}

/** The verdict in full: what the answer does not say follows from its decision. */
function toVerdict(customerId: string, feature: string, answer: boolean | Partial<Verdict>): Verdict {
  const told = typeof answer === "boolean" ? { allowed: answer } : answer;
  const decision = told.decision ?? ((told.allowed ?? told.reason?.startsWith("ALLOWED")) ? "ALLOW" : "DENY");
  const allowed = decision === "ALLOW";
  return Object.freeze({
    customerId,
    feature,
    reason: allowed ? "ALLOWED" : "FEATURE_NOT_IN_PLAN",
    license: undefined,
    violations: allowed ? [] : [`Feature "${feature}" is denied by the test.`],
    limitViolations: [],
    grant: undefined,
    version: 1n,
    stalenessMs: 0,
    usageStalenessMs: undefined,
    degraded: false,
    source: "SDK",
    ...told,
    decision,
    allowed,
  } satisfies Verdict);
}
