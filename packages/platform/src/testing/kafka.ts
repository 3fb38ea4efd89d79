import { describe, test } from "@jest/globals";
import { type KafkaServer, startKafka } from "../local/kafka.ts";
import { whyNoKafka } from "../local/kafka-release.ts";

/** Runs cases that need the Kafka of {@link startTestKafka}; says plainly when they are skipped. */
export function describeKafka(name: string, cases: () => void): void {
  const missing = process.env.KAFKA_BROKERS === undefined ? whyNoKafka() : undefined;
  describeUnless(missing && `KAFKA_BROKERS is not set and ${missing}`, name, cases);
}

/** Runs cases that start a Kafka of their own; says plainly when they are skipped. */
export function describeOwnKafka(name: string, cases: () => void): void {
  describeUnless(whyNoKafka(), name, cases);
}

function describeUnless(missing: string | undefined, name: string, cases: () => void): void {
  if (missing === undefined) {
    describe(name, cases);
  } else if ((process.env.LICET_REQUIRE ?? "").split(",").includes("kafka")) {
    test(name, () => {
      throw new Error(`LICET_REQUIRE names kafka, but ${missing}`);
    });
  } else {
    describe.skip(`${name} (SKIPPED: ${missing})`, cases);
  }
}

/** Takes the Kafka that KAFKA_BROKERS names, a list of `host:port` divided by commas, or starts one. */
export async function startTestKafka(): Promise<Pick<KafkaServer, "brokers" | "stop">> {
  const given = process.env.KAFKA_BROKERS;
  return given === undefined ? startKafka() : { brokers: given.split(","), stop: async () => undefined };
}
