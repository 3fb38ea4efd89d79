import { create, toBinary } from "@bufbuild/protobuf";
import {
  ValidateFeatureRequestSchema,
  ValidateStreamRequestSchema,
  ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Benchmark, Row } from "./report.ts";
import { perCpuSecond } from "./rounds.ts";
import type { StreamLoadRequest } from "./stream-load.ts";
import { ECHO_STREAM } from "./unary-server.ts";

/** Questions that were sent and not answered, at most, of each stream. */
const window = 400;

/** How many questions a core answers on streams. */
export const stream: Benchmark = {
  about: "ValidateStream with several questions a message, against grpc-js echoing one by one with generated code",
  run: async () => [await measure(20), await measure(100)],
};

async function measure(questionsPerMessage: number): Promise<Row> {
  const ask = (index: number) => ({ customerId: `customer-${index}`, feature: "egx_access" });
  const single = toBinary(ValidateFeatureRequestSchema, create(ValidateFeatureRequestSchema, ask(4_711)));
  const questions = Array.from({ length: questionsPerMessage }, (_, index) => ask(index));
  const many = toBinary(ValidateStreamRequestSchema, create(ValidateStreamRequestSchema, { questions }));
  const load = (path: string, message: Uint8Array, perMessage: number) => ({
    load: ({ port, credential }: { port: number; credential: string }, forMs: number): StreamLoadRequest => ({
      port,
      path,
      credential,
      message: Buffer.from(message).toString("base64"),
      perMessage,
      window,
      forMs,
      streams: 4,
    }),
  });
  const figures = await perCpuSecond({
    sides: {
      baseline: { server: "baseline", ...load(ECHO_STREAM, single, 1) },
      ours: {
        server: "ours",
        ...load(`/${ValidationService.typeName}/ValidateStream`, many, questionsPerMessage),
      },
    },
    generator: "stream-load.ts",
    what: "questions",
  });
  return {
    name: `ValidateStream, ${questionsPerMessage} a message`,
    ...figures,
    unit: "questions per CPU second",
    target: "≥ 4 × grpc-js's echo stream",
    met: figures.ours >= 4 * figures.baseline,
  };
}
