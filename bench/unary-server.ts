import { PerformanceObserver } from "node:perf_hooks";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  Decision,
  DecisionReason,
  DecisionSource,
  type ValidateFeatureRequest,
  ValidateFeatureRequestSchema,
  type ValidateFeatureResponse,
  ValidateFeatureResponseSchema,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { serveParent } from "./child.ts";
import { startValidation } from "./unary-validation.ts";

/** Where the server is, and what it has used up so far. */
export interface ServerReport {
  readonly port: number;
  /** An API key that it accepts. */
  readonly credential: string;
  /** CPU time of the process so far, in microseconds, user and system. */
  readonly cpuMicros: number;
  /** The longest pause of the garbage collector since the last report, in milliseconds. */
  readonly longestGcMs: number;
}

/** The path of the stream of {@link startConstant} that answers each message with one. */
export const ECHO_STREAM = "/bench.Echo/Stream";

/** grpc-js and nothing else: the bytes of a typical reply, whatever is asked. */
async function startConstant(): Promise<{ port: number; credential: string }> {
  const reply = create(ValidateFeatureResponseSchema, {
    valid: true,
    decision: Decision.ALLOW,
    reason: DecisionReason.ALLOWED,
    source: DecisionSource.MEMORY,
    version: 7n,
    stalenessMs: 412n,
    license: {
      licenseId: "0197a000-0000-7000-8000-000000000001",
      type: LicenseType.ENTERPRISE,
      product: "trading",
      plan: "enterprise",
      status: LicenseStatus.ACTIVE,
      validUntil: timestampFromMs(Date.UTC(2040, 0, 1)),
    },
  });
  const bytes = Buffer.from(toBinary(ValidateFeatureResponseSchema, reply));
  const asIs = (message: Buffer): Buffer => message;
  const { validateFeature } = ValidationService.method;
  const server = new grpc.Server();
  server.addService(
    {
      validateFeature: {
        path: `/${ValidationService.typeName}/${validateFeature.name}`,
        requestStream: false,
        responseStream: false,
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      },
    },
    {
      validateFeature: (_call: grpc.ServerUnaryCall<Buffer, Buffer>, answer: grpc.sendUnaryData<Buffer>) =>
        answer(null, bytes),
    },
  );
  server.addService(
    {
      echo: {
        path: ECHO_STREAM,
        requestStream: true,
        responseStream: true,
        requestSerialize: asIs,
        requestDeserialize: (message: Buffer) => fromBinary(ValidateFeatureRequestSchema, message),
        responseSerialize: (message: ValidateFeatureResponse) =>
          Buffer.from(toBinary(ValidateFeatureResponseSchema, message)),
        responseDeserialize: asIs,
      },
    },
    {
      echo: (call: grpc.ServerDuplexStream<ValidateFeatureRequest, ValidateFeatureResponse>) => {
        call.on("data", () => call.write(reply));
        call.on("end", () => call.end());
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return { port, credential: "none-is-needed" };
}

if (import.meta.main) {
  let longestGcMs = 0;
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) longestGcMs = Math.max(longestGcMs, duration);
  }).observe({ entryTypes: ["gc"] });
  const [side, customers = "10000", changesPerSecond = "0"] = process.argv.slice(2);
  const world = { customers: Number(customers), changesPerSecond: Number(changesPerSecond) };
  const started = side === "ours" ? startValidation(world) : startConstant();
  serveParent(async (): Promise<ServerReport> => {
    const { user, system } = process.cpuUsage();
    const report = { ...(await started), cpuMicros: user + system, longestGcMs };
    longestGcMs = 0;
    return report;
  });
}
