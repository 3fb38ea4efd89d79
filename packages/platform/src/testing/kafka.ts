import { type KafkaServer, startKafka } from "../local/kafka.ts";
import { whyNoKafka } from "../local/kafka-release.ts";

/** Why cases that need Kafka can't run here, or undefined when they can. */
export function whyNoTestKafka(): string | undefined {
  const missing = process.env.KAFKA_BROKERS === undefined ? whyNoKafka() : undefined;
  return missing && `KAFKA_BROKERS is not set and ${missing}`;
}

/** Takes the Kafka that KAFKA_BROKERS names, a list of `host:port` divided by commas, or starts one. */
export async function startTestKafka(): Promise<Pick<KafkaServer, "brokers" | "stop">> {
  const given = process.env.KAFKA_BROKERS;
  return given === undefined ? startKafka() : { brokers: given.split(","), stop: async () => undefined };
}
