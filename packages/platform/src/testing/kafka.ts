import { type KafkaServer, startKafka } from "../local/kafka.ts";
import { whyNoKafka } from "../local/kafka-release.ts";
import { describeWith } from "./needs.ts";

/** Runs cases that need the Kafka of {@link startTestKafka}; says plainly when they are skipped. */
export function describeKafka(name: string, cases: () => void): void {
  describeWith("kafka", whyNoTestKafka(), name, cases);
}

/** Runs cases that start a Kafka of their own; says plainly when they are skipped. */
export function describeOwnKafka(name: string, cases: () => void): void {
  describeWith("kafka", whyNoKafka(), name, cases);
}

/** Why {@link startTestKafka} can't give one; undefined when it can. */
export function whyNoTestKafka(): string | undefined {
  return process.env.KAFKA_BROKERS === undefined ? whyNoKafka() : undefined;
}

/** Takes the Kafka that KAFKA_BROKERS names, a list of `host:port` divided by commas, or starts one. */
export async function startTestKafka(): Promise<Pick<KafkaServer, "brokers" | "stop">> {
  const given = process.env.KAFKA_BROKERS;
  return given === undefined ? startKafka() : { brokers: given.split(","), stop: async () => undefined };
}
