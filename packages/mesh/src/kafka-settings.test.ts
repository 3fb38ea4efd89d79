import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { parseConfig } from "@licet/platform/config";
import { createKafkaAdmin, createKafkaClient } from "@licet/platform/events/kafka-client";
import { applyTopics } from "@licet/platform/events/kafka-topics";
import { findFreePorts } from "@licet/platform/free-ports";
import { type KafkaServer, startKafka } from "@licet/platform/local/kafka";
import { createLogger } from "@licet/platform/logging";
import { createTestAuthority } from "@licet/platform/testing/certificates";
import { describeOwnKafka } from "@licet/platform/testing/kafka";
import { openBus } from "./bus.ts";
import { kafkaConnection } from "./kafka-settings.ts";
import { busSettings } from "./settings.ts";
import { topics } from "./topics.ts";

const KAFKA_BROKERS = "localhost:9093";
const sasl = {
  KAFKA_SASL_MECHANISM: "scram-sha-512",
  KAFKA_SASL_USERNAME: "alice",
  KAFKA_SASL_PASSWORD: "wonder-land",
};

describe("the settings of Kafka", () => {
  test.each([
    [{ KAFKA_TLS: "on" }, /KAFKA_TLS: is set without KAFKA_BROKERS/],
    [{ ...sasl, KAFKA_TLS_CA: "ca.pem" }, /KAFKA_SASL_PASSWORD: is set without KAFKA_BROKERS/],
    [{ KAFKA_BROKERS, KAFKA_TLS: "yes" }, /KAFKA_TLS: is neither on nor off; it should be on or off/],
    [{ KAFKA_BROKERS, KAFKA_TLS: "off", KAFKA_TLS_CA: "ca.pem" }, /KAFKA_TLS: is off, although KAFKA_TLS_CA/],
    [{ KAFKA_BROKERS, KAFKA_TLS_CERT: "cert.pem" }, /KAFKA_TLS_KEY: is missing; .* KAFKA_TLS_CERT and KAFKA_TLS_KEY/],
    [{ KAFKA_BROKERS, KAFKA_TLS_KEY: "key.pem" }, /KAFKA_TLS_CERT: is missing/],
    [{ KAFKA_BROKERS, ...sasl, KAFKA_SASL_PASSWORD: "" }, /KAFKA_SASL_PASSWORD: is missing; it should be a password/],
    [{ KAFKA_BROKERS, KAFKA_SASL_USERNAME: "alice" }, /KAFKA_SASL_MECHANISM: is missing; it should be plain/],
    [{ KAFKA_BROKERS, ...sasl, KAFKA_SASL_MECHANISM: "gssapi" }, /KAFKA_SASL_MECHANISM: is no mechanism/],
    [{ KAFKA_BROKERS, ...sasl, KAFKA_SASL_MECHANISM: "plain" }, /KAFKA_SASL_MECHANISM: is plain without TLS/],
  ])("%j is refused", (env, problem) => {
    const attempt = () => parseConfig(busSettings, env);
    expect(attempt).toThrow(problem);
    expect(attempt).not.toThrow(/wonder-land/);
  });

  test("files that can't be read or are no certificates are refused by name", async () => {
    const connect = (file: string) => {
      const set = parseConfig(busSettings, { KAFKA_BROKERS, KAFKA_TLS_CA: file });
      return kafkaConnection(set, [KAFKA_BROKERS]);
    };
    await expect(connect("/nowhere/ca.pem")).rejects.toThrow("cannot read the TLS file /nowhere/ca.pem");
    await expect(connect(import.meta.filename)).rejects.toThrow(/^KAFKA_TLS_CA can't be used for TLS: /);
  });
});

describeOwnKafka("a Kafka with TLS and log-in", () => {
  const authority = createTestAuthority();
  let folder: string;
  let kafka: KafkaServer;
  let mutual: string;
  let login: string;
  const files: Record<string, string> = {};
  const logged: string[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "licet-secure-"));
    const { ca, cert, key } = authority.issue("localhost");
    const client = authority.issue("licet");
    const stranger = createTestAuthority("another authority");
    const contents = { ca, server: Buffer.concat([key, cert]), cert: client.cert, key: client.key, other: stranger.ca };
    for (const [name, content] of Object.entries(contents)) {
      files[name] = path.join(folder, `${name}.pem`);
      await writeFile(files[name], content);
    }
    const [mutualPort, loginPort] = await findFreePorts(2);
    mutual = `localhost:${mutualPort}`;
    login = `localhost:${loginPort}`;
    const plain = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_bob="b0b-secret";';
    const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    kafka = await startKafka({
      listeners: [`SSL://${mutual}`, `SASL_SSL://${login}`],
      users: ["SCRAM-SHA-256", "SCRAM-SHA-512"].map((name) => `${name}=[name=alice,password=wonder-land]`),
      settings: {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": `${files.server}`,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": `${files.ca}`,
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": plain,
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
      },
    });
    const admin = createKafkaAdmin(createKafkaClient(kafka, "set-up", createLogger({ level: "silent", name: "test" })));
    await admin.ask((asked) => applyTopics(asked, topics));
    await admin.stop();
  }, 300_000);
  afterAll(async () => {
    await kafka?.stop();
    await rm(folder, { recursive: true });
  });

  /** Opens a bus by settings, and uses it. */
  async function use(env: Record<string, string | undefined>): Promise<string> {
    const destination = new Writable({
      write(chunk, _encoding, done) {
        logged.push(String(chunk));
        done();
      },
    });
    const logger = createLogger({ level: "debug", name: "test", destination });
    const bus = await openBus(parseConfig(busSettings, env), "test", logger);
    try {
      await bus.heartbeat(topics[0]?.name ?? "", new Date());
      return await bus.id();
    } finally {
      await bus.stop();
    }
  }
  const alice = (more: Record<string, string | undefined> = {}) => ({
    KAFKA_BROKERS: login,
    KAFKA_TLS_CA: files.ca,
    ...sasl,
    ...more,
  });
  const bob = { KAFKA_SASL_MECHANISM: "plain", KAFKA_SASL_USERNAME: "bob", KAFKA_SASL_PASSWORD: "b0b-secret" };
  const shown = () => ({ KAFKA_TLS_CERT: files.cert, KAFKA_TLS_KEY: files.key });

  test("is used with each mechanism, and with a certificate", async () => {
    const id = await use({ KAFKA_BROKERS: kafka.brokers[0] });
    expect(await use(alice())).toBe(id);
    expect(await use(alice({ KAFKA_SASL_MECHANISM: "scram-sha-256" }))).toBe(id);
    expect(await use(alice(bob))).toBe(id);
    expect(await use({ KAFKA_BROKERS: mutual, KAFKA_TLS: "on", KAFKA_TLS_CA: files.ca, ...shown() })).toBe(id);
  });

  test.each([
    ["a wrong password", () => alice({ KAFKA_SASL_PASSWORD: "wrong-pass" }), /refuses the log-in: .*[Aa]uthentication/],
    ["a wrong password, plain", () => alice({ ...bob, KAFKA_SASL_PASSWORD: "wrong-pass" }), /refuses the log-in: /],
    ["an unknown user", () => alice({ KAFKA_SASL_USERNAME: "mallory" }), /refuses the log-in: /],
    ["another authority", () => alice({ KAFKA_TLS_CA: files.other }), /can't be reached: .*certificate/],
    ["no authority", () => alice({ KAFKA_TLS_CA: undefined, KAFKA_TLS: "on" }), /can't be reached: .*certificate/],
    [
      "no certificate",
      () => ({ KAFKA_BROKERS: mutual, KAFKA_TLS_CA: files.ca }),
      // By the Java that runs the broker: RFC 8446 has an alert of its own for it, older ones call it a bad one.
      /can't be reached: .*(certificate required|bad certificate)/,
    ],
    ["no TLS", () => alice({ KAFKA_TLS_CA: undefined, KAFKA_TLS: "off" }), /can't be reached: .* wants TLS/],
    [
      "no log-in",
      () => ({ KAFKA_BROKERS: login, KAFKA_TLS_CA: files.ca }),
      /can't be reached: .* wants TLS or a log-in/,
    ],
  ])("is not used with %s, which is said soon", async (_what, env, sentence) => {
    const refused = await use(env()).catch((error: Error) => error.message);
    expect(refused).toMatch(/^Kafka at localhost:\d+ /);
    expect(refused).toMatch(sentence);
    expect(refused).not.toMatch(/wrong-pass|wonder-land/);
  });

  test("no password was logged", () => {
    expect(logged.length).toBeGreaterThan(0);
    expect(logged.join("")).not.toMatch(/wrong-pass|wonder-land|b0b-secret/);
  });
});
