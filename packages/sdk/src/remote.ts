import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type Answer,
  type ValidateFeatureRequestSchema,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Connection } from "./connection.ts";
import { fromAnswer, fromCheckFeatures, fromValidateFeature, toSteps } from "./convert.ts";
import { invalidArgument, LicetDenied, LicetError } from "./errors.ts";
import type { AskOptions, RemoteLicet } from "./licet.ts";
import { checkCustomerId, checkFeature, toContext } from "./question.ts";
import { createStates, type States } from "./state.ts";
import type { Question, Verdict } from "./verdict.ts";

/** The most features that one CheckFeatures takes. */
const MAX_FEATURES = 1_000;
/** The most questions that one BatchValidate takes. */
const MAX_QUESTIONS = 1_000;

/** Creates a client that asks. */
export function createRemote(connection: Connection): RemoteLicet {
  const states = createStates();
  const { validateFeature, checkFeatures, batchValidate } = ValidationService.method;
  const stop = new AbortController();
  // Until the first answer, a connection is all that can be told.
  void connection.connected(stop.signal).then(
    () => states.enter("READY"),
    (error: unknown) => noteFailure(states, error),
  );

  const send = async (question: Question, explain: boolean, options: AskOptions | undefined) => {
    const { customerId, feature } = question;
    const request = { ...toRequest(question), explain };
    const reply = await noting(states, connection.unary(validateFeature, request, options));
    states.enter(reply.degraded ? "STALE" : "READY");
    return { verdict: fromValidateFeature(customerId, feature, reply), steps: toSteps(reply) };
  };
  const ask = async (question: Question, options?: AskOptions): Promise<Verdict> =>
    (await send(question, false, options)).verdict;
  const askAll = async (sent: Request[], options: AskOptions | undefined): Promise<readonly Answer[]> => {
    const { answers } = await noting(states, connection.unary(batchValidate, { questions: sent }, options));
    const degraded = answers.some(({ result }) => result.case === "response" && result.value.degraded);
    states.enter(degraded ? "STALE" : "READY");
    return answers;
  };
  return {
    mode: "remote",
    ask,
    async askMany(questions, options) {
      if (questions.length > MAX_QUESTIONS) {
        throw invalidArgument("questions", `has ${questions.length} questions, must have ${MAX_QUESTIONS} at most`);
      }
      const requests = questions.map(toRequestOrError);
      const sent = requests.filter((request): request is Request => !(request instanceof LicetError));
      const answers = sent.length === 0 ? [] : await askAll(sent, options);
      let next = 0;
      return questions.map(({ customerId, feature }, index) => {
        const request = requests[index];
        return request instanceof LicetError ? request : fromAnswer(customerId, feature, answers[next++]);
      });
    },
    check: (customerId, feature, context, options) => ask({ customerId, feature, context }, options),
    async checkMany(customerId, features, context = {}, options) {
      checkCustomerId(customerId);
      checkAll(features);
      if (features.length === 0) return [];
      const request = { customerId, features: [...features], context: toContext(context) };
      const reply = await noting(states, connection.unary(checkFeatures, request, options));
      states.enter(reply.degraded ? "STALE" : "READY");
      return fromCheckFeatures(customerId, features, reply);
    },
    async require(customerId, feature, context, options) {
      const verdict = await ask({ customerId, feature, context }, options);
      if (!verdict.allowed) throw new LicetDenied(verdict);
      return verdict;
    },
    explain: (customerId, feature, context, options) => send({ customerId, feature, context }, true, options),
    get state() {
      return states.state;
    },
    on: states.on,
    ready: states.ready,
    async close() {
      stop.abort();
      states.close();
      connection.close();
    },
  };
}

type Request = MessageInitShape<typeof ValidateFeatureRequestSchema>;

/** @throws {LicetError} INVALID_ARGUMENT for a question that can't be right. */
function toRequest({ customerId, feature, context = {}, product, atLeast }: Question): Request {
  checkCustomerId(customerId);
  checkFeature("feature", feature);
  const sent = { ...toContext(context), ...(product !== undefined && { product }) };
  return { customerId, feature, context: sent, ...(atLeast && { atLeast }) };
}

function toRequestOrError(question: Question): Request | LicetError {
  try {
    return toRequest(question);
  } catch (error) {
    if (error instanceof LicetError) return error;
    throw error;
  }
}

function checkAll(features: readonly string[]): void {
  if (features.length > MAX_FEATURES) {
    throw invalidArgument("features", `names ${features.length} features, must name ${MAX_FEATURES} at most`);
  }
  for (const [index, feature] of features.entries()) checkFeature(`features[${index}]`, feature);
}

async function noting<T>(states: States, call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    noteFailure(states, error);
    throw error;
  }
}

/** What a failed call says about all others; that a question was wrong says nothing. */
function noteFailure(states: States, error: unknown): void {
  if (!(error instanceof LicetError)) return;
  if (error.code === "UNAUTHENTICATED" || error.code === "PERMISSION_DENIED") states.enter("FATAL", error);
  if (error.code === "UNAVAILABLE" || error.code === "DEADLINE_EXCEEDED") states.enter("ERROR", error);
}
