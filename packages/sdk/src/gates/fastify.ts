/** A gate for Fastify 5. */
import { examine, type FeatureOptions, type GateOptions, RETRY_AFTER_SECONDS } from "./gate.ts";

export { type Checker, type FeatureOptions, type GateOptions, type Problem, verdictOf } from "./gate.ts";

/** What a gate needs of a reply. */
export interface GateReply {
  code(status: number): unknown;
  header(name: string, value: string): unknown;
  send(body: string): unknown;
}

/** A hook for `onRequest`, or for `preHandler` where the body has to be read. */
export type GateHook<Request> = (request: Request, reply: GateReply) => Promise<unknown>;

/** Makes hooks that let through what a license allows. */
export interface Gate<Request> {
  /**
   * A hook that lets a request through when its customer may use a feature, and answers a problem body otherwise: 403 where
   * the license does not allow it, 503 where nobody answers, 400 for a context that can't be compared.
   *
   * @param feature its code, or how to tell it from the request
   */
  requireFeature(
    feature: string | ((request: Request) => string),
    options?: FeatureOptions<Request>,
  ): GateHook<Request>;
}

/** Creates a gate. */
export function createGate<Request extends object>(options: GateOptions<Request>): Gate<Request> {
  return {
    requireFeature(feature, about = {}) {
      return async (request, reply) => {
        const code = typeof feature === "function" ? feature(request) : feature;
        const problem = await examine(options, { ...about, feature: code }, request, request);
        if (problem === undefined) return;
        reply.code(problem.status);
        reply.header("content-type", "application/problem+json; charset=utf-8");
        if (problem.status === 503) reply.header("retry-after", String(RETRY_AFTER_SECONDS));
        // A hook that returns the reply ends the request.
        return reply.send(JSON.stringify(problem));
      };
    },
  };
}
