import { create, toBinary } from "@bufbuild/protobuf";
import {
  CheckFeaturesRequestSchema,
  ValidateFeatureRequestSchema,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Benchmark } from "./report.ts";
import { perCpuSecond, type Side } from "./rounds.ts";
import type { LoadRequest } from "./unary-load.ts";

/** Customers that are asked about in turn. */
const customers = Array.from({ length: 1_000 }, (_, index) => `customer-${index}`);
const features = Array.from({ length: 100 }, (_, index) => `feature_${index}`);

/** Calls of a method in a closed loop, with these messages in turn. */
function calls(server: Side["server"], method: string, messages: readonly Uint8Array[]): Side {
  const bodies = messages.map((message) => Buffer.from(message).toString("base64"));
  const path = `/${ValidationService.typeName}/${method}`;
  return {
    server,
    load: ({ port, credential }, forMs): LoadRequest => ({ port, path, credential, bodies, forMs, concurrency: 64 }),
  };
}

const questions = customers.map((customerId) =>
  toBinary(ValidateFeatureRequestSchema, create(ValidateFeatureRequestSchema, { customerId, feature: "egx_access" })),
);

/** How much of a core a ValidateFeature costs the server. */
export const unary: Benchmark = {
  about: "ValidateFeature through the whole pipeline over gRPC, against a grpc-js server that answers constant bytes",
  async run() {
    const figures = await perCpuSecond({
      sides: {
        baseline: calls("baseline", "ValidateFeature", questions),
        ours: calls("ours", "ValidateFeature", questions),
      },
      generator: "unary-load.ts",
      what: "requests",
    });
    return [
      {
        name: "unary ValidateFeature",
        ...figures,
        unit: "requests per CPU second",
        target: "≥ 0.9 × constant-reply grpc-js",
        met: figures.ours >= 0.9 * figures.baseline,
      },
    ];
  },
};

/** How many features of a customer a core checks when they are asked about together. */
export const checkFeatures: Benchmark = {
  about:
    "CheckFeatures of 100 features through the whole pipeline over gRPC, against as many ValidateFeature by themselves",
  async run() {
    const lists = customers.map((customerId) =>
      toBinary(CheckFeaturesRequestSchema, create(CheckFeaturesRequestSchema, { customerId, features })),
    );
    const { baseline, ours } = await perCpuSecond({
      sides: {
        baseline: calls("ours", "ValidateFeature", questions),
        ours: calls("ours", "CheckFeatures", lists),
      },
      generator: "unary-load.ts",
      what: "requests",
    });
    const checks = ours * features.length;
    return [
      {
        name: "CheckFeatures(100)",
        baseline,
        ours: checks,
        unit: "checks per CPU second",
        target: "≥ 1,000,000",
        met: checks >= 1_000_000,
      },
    ];
  },
};
