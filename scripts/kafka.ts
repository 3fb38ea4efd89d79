/**
 * `pnpm kafka`: Apache Kafka on the loopback interface until Ctrl-C, with data that is removed afterwards. Fetched by Maven
 * the first time; needs Java 17. `KAFKA_PORT` names its port. Tests and programs use it when its line is in their
 * environment: KAFKA_BROKERS=127.0.0.1:PORT.
 */
import { once } from "node:events";
import { startKafka } from "../packages/platform/src/local/kafka.ts";
import { whyNoKafka } from "../packages/platform/src/local/kafka-release.ts";

const whyNot = whyNoKafka();
if (whyNot !== undefined) {
  console.error(`Kafka can't be started: ${whyNot}`);
  process.exit(1);
}
const port = process.env.KAFKA_PORT;
const kafka = await startKafka(port === undefined ? {} : { port: Number(port) });
console.log(`KAFKA_BROKERS=${kafka.brokers.join(",")}`);
// A signal's listener doesn't keep the process alive.
const alive = setInterval(() => undefined, 60_000);
await Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]);
clearInterval(alive);
await kafka.stop();
