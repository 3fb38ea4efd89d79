/** A gate for Express 5, and for all that calls `(request, response, next)` with Node's response. */
import { examine, type FeatureOptions, type GateOptions, RETRY_AFTER_SECONDS } from "./gate.ts";

export { type Checker, type FeatureOptions, type GateOptions, type Problem, verdictOf } from "./gate.ts";

/** What a gate needs of a response: Node's own methods. */
export interface GateResponse {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
}

/** A middleware. */
export type GateHandler<Request> = (request: Request, response: GateResponse, next: (error?: unknown) => void) => void;

/** Makes middlewares that let through what a license allows. */
export interface Gate<Request> {
  /**
   * A middleware that lets a request through when its customer may use a feature, and answers a problem body otherwise: 403
   * where the license does not allow it, 503 where nobody answers, 400 for a context that can't be compared.
   *
   * @param feature its code, or how to tell it from the request
   */
  requireFeature(
    feature: string | ((request: Request) => string),
    options?: FeatureOptions<Request>,
  ): GateHandler<Request>;
}

/** Creates a gate. */
export function createGate<Request extends object>(options: GateOptions<Request>): Gate<Request> {
  return {
    requireFeature(feature, about = {}) {
      const handle = async (request: Request, response: GateResponse): Promise<boolean> => {
        const code = typeof feature === "function" ? feature(request) : feature;
        const problem = await examine(options, { ...about, feature: code }, request, request);
        if (problem === undefined) return true;
        response.statusCode = problem.status;
        response.setHeader("content-type", "application/problem+json; charset=utf-8");
        if (problem.status === 503) response.setHeader("retry-after", String(RETRY_AFTER_SECONDS));
        response.end(JSON.stringify(problem));
        return false;
      };
      return (request, response, next) => {
        handle(request, response).then((through) => {
          if (through) next();
        }, next);
      };
    },
  };
}
