import { createRegistry, type DescMethodUnary, fromJson, type JsonObject, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { LicensingService as FirstPlan } from "@licet/contracts/licensing/licensing_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { ATTEMPTS, patient } from "@licet/platform/testing/patient";
import { type ForeignClient, refusal } from "./outcome.ts";

const registry = createRegistry(LicensingService, ValidationService, FirstPlan);

/** gRPC-Web as a browser's page speaks it: connect-web over `fetch`. */
export function grpcWeb(webUrl: string): ForeignClient {
  const transport = patient(createGrpcWebTransport({ baseUrl: webUrl }), ATTEMPTS);
  return {
    async call(key, name, body) {
      const [service = "", methodName] = name.split("/");
      const method = registry.getService(service)?.methods.find((candidate) => candidate.name === methodName);
      if (method?.methodKind !== "unary") throw new Error(`there is no unary method ${name}`);
      const headers = key === undefined ? undefined : { "x-api-key": key };
      try {
        const request = fromJson(method.input, body);
        const unary = method as DescMethodUnary;
        const { message } = await transport.unary(unary, undefined, undefined, headers, request);
        return { reply: toJson(method.output, message, { alwaysEmitImplicit: true }) as JsonObject };
      } catch (error) {
        if (!(error instanceof ConnectError)) throw error;
        const details = error.details.filter((detail) => "type" in detail);
        const code = Code[error.code].replace(/(?<=[a-z])(?=[A-Z])/g, "_");
        return refusal(code, error.rawMessage, details);
      }
    },
  };
}
