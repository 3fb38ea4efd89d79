/** A gate for servers of grpc-js. */
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { ErrorInfoSchema, RetryInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import { invalidArgument } from "../errors.ts";
import { examine, type FeatureOptions, type GateOptions, type Problem, RETRY_AFTER_SECONDS } from "./gate.ts";

export { type Checker, type FeatureOptions, type GateOptions, verdictOf } from "./gate.ts";

/** A call before its first message is read. */
export interface GateCall {
  /** What the caller sent beside its messages. */
  readonly metadata: grpc.Metadata;
  /** Such as `/acme.trading.v1.OrderService/PlaceOrder`. */
  readonly path: string;
  /** The caller's address. */
  readonly peer: string;
}

/** Which feature a method needs, by its path or by a function of it; undefined: none, everybody may call it. */
export type MethodFeatures = Readonly<Record<string, string>> | ((path: string) => string | undefined);

/** Makes interceptors that let through what a license allows. */
export interface Gate {
  /**
   * An interceptor for `new grpc.Server({ interceptors })`. A call passes when its customer may use the method's feature. It is
   * ended otherwise, before its first message is read: with PERMISSION_DENIED where the license does not allow it, UNAVAILABLE
   * where nobody answers, INVALID_ARGUMENT for a context that can't be compared. The verdict's reason is in
   * `google.rpc.ErrorInfo`.
   *
   * @throws {LicetError} INVALID_ARGUMENT for a path that is not of the form `/package.Service/Method`.
   */
  requireFeatures(features: MethodFeatures, options?: FeatureOptions<GateCall>): grpc.ServerInterceptor;
}

const codes = {
  400: grpc.status.INVALID_ARGUMENT,
  403: grpc.status.PERMISSION_DENIED,
  503: grpc.status.UNAVAILABLE,
} as const;

/** `/package.Service/Method`, as calls name it. */
const pathPattern = /^\/[^/]+\/[^/]+$/;

/** @throws {LicetError} INVALID_ARGUMENT naming a path that no call can have: it would gate nothing. */
function toFeatures(features: MethodFeatures): (path: string) => string | undefined {
  if (typeof features === "function") return features;
  for (const path of Object.keys(features)) {
    if (pathPattern.test(path)) continue;
    const description = "is no path of a method; it must be as in /acme.trading.v1.OrderService/PlaceOrder";
    throw invalidArgument(`features[${JSON.stringify(path)}]`, description);
  }
  const byPath = new Map(Object.entries(features));
  return (path) => byPath.get(path);
}

/** Creates a gate. */
export function createGate(options: GateOptions<GateCall>): Gate {
  return {
    requireFeatures(features, about = {}) {
      const featureOf = toFeatures(features);
      return ({ path }, call) => {
        const feature = featureOf(path);
        if (feature === undefined) return new grpc.ServerInterceptingCall(call);
        const examineCall = (metadata: grpc.Metadata): Promise<Problem | undefined> =>
          examine(options, { ...about, feature }, { metadata, path, peer: call.getPeer() }, metadata);
        const listener: grpc.ServerListener = {
          onReceiveMetadata(metadata, next) {
            examineCall(metadata).then(
              (problem) => {
                if (problem === undefined) next(metadata);
                else call.sendStatus(toStatus(problem));
              },
              (error: unknown) => {
                // A function of the options threw: what it says is for the log, not for the caller.
                const detail = error instanceof Error && error.stack !== undefined ? error.stack : String(error);
                process.emitWarning("a license gate failed", { type: "LicetWarning", code: "GATE_FAILED", detail });
                call.sendStatus({ code: grpc.status.INTERNAL, details: "the license gate failed" });
              },
            );
          },
        };
        return new grpc.ServerInterceptingCall(call, { start: (next) => next(listener) });
      };
    },
  };
}

function toStatus({ status, detail, error, feature, reason, decision }: Problem): grpc.StatusObject {
  const code = codes[status];
  const facts = { error, feature, ...(decision !== undefined && { decision }) };
  const info = create(ErrorInfoSchema, { reason, domain: "licet.dev", metadata: facts });
  const details = [anyPack(ErrorInfoSchema, info)];
  if (status === 503) {
    const retryDelay = { seconds: BigInt(RETRY_AFTER_SECONDS) };
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  const bytes = toBinary(StatusSchema, create(StatusSchema, { code, message: detail, details }));
  const metadata = new grpc.Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(bytes));
  return { code, details: detail, metadata };
}
