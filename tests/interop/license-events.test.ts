/** The consumers of `examples/license-events`, as processes, against a licensing service on a real Kafka. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { LicenseType } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { ApiKeyRole } from "@licet/contracts/licet/licensing/v1/tenant_pb";
import { asSystem } from "@licet/platform/database/database";
import { newId } from "@licet/platform/ids";
import { describeKafka, startTestKafka, whyNoTestKafka } from "@licet/platform/testing/kafka";
import { skippedFor } from "@licet/platform/testing/needs";
import { until } from "@licet/platform/testing/until";
import { Kafka, logLevel } from "kafkajs";
import { sql } from "kysely";
import { buildGoExamples, whyNoGo } from "./go.ts";
import { type LicensingClients, type LicensingOnKafka, startLicensingOnKafka } from "./licensing-on-kafka.ts";

const suite = "the examples' consumers of license events";
const noKafka = whyNoTestKafka();
const noGo = noKafka !== undefined || skippedFor("go", whyNoGo(), `${suite} in Go`);

/** Fetching Kafka and the Go modules for the first time, and building; a loaded machine is slow. */
const SETUP_MS = 600_000;
/** The killed member of a group is missed after 10 s, by the same clock that a loaded machine slows down. */
const within = { timeoutMs: 90_000 };
const examples = path.join(import.meta.dirname, "../../examples/license-events");

let folder: string;
let kafka: Awaited<ReturnType<typeof startTestKafka>>;
let licensing: LicensingOnKafka;
let brand: LicensingClients;
let consumers: Consumer[];

beforeAll(async () => {
  if (noKafka !== undefined) return;
  folder = mkdtempSync(path.join(tmpdir(), "licet-license-events-"));
  // Before Kafka starts: a compiler beside it takes all cores, and Kafka has only so long to start.
  if (!noGo) await buildGoExamples(folder);
  kafka = await startTestKafka();
  licensing = await startLicensingOnKafka(kafka.brokers);
  const adminKey = await createTenant();
  brand = licensing.as(adminKey);
  await furnish();
  const { apiKey, secret } = await brand.tenants.createApiKey({
    requestId: newId(),
    name: "subscriber",
    role: ApiKeyRole.SERVICE,
  });
  const names = ["kafka-consumer", "stream-consumer"];
  const languages = noGo ? ["ts"] : ["ts", "go"];
  consumers = languages.flatMap((language) =>
    names.map((name) => new Consumer(language, name, { keyId: apiKey?.keyId ?? "", secret })),
  );
}, SETUP_MS);

afterAll(async () => {
  if (noKafka !== undefined) return;
  await Promise.all((consumers ?? []).map((consumer) => consumer.end("SIGKILL")));
  brand?.close();
  await licensing?.stop();
  await kafka?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** An effect, as a consumer's journal has it. */
interface Effect {
  readonly eventId: string;
  readonly type: string;
  readonly customerId: string;
  readonly version: number;
}

/** One example as a process that can be ended and started again on the same journal. */
class Consumer {
  readonly name: string;
  readonly keyId: string;
  readonly #command: readonly string[];
  readonly #journal: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly told: string[] = [];
  #child: ChildProcess | undefined;
  #exitCode: number | null = null;

  constructor(language: string, name: string, { keyId, secret }: { keyId: string; secret: string }) {
    this.name = `${name} (${language})`;
    this.keyId = keyId;
    this.#journal = path.join(folder, `${name}-${language}.jsonl`);
    this.#command =
      language === "go"
        ? [path.join(folder, name)]
        : [process.execPath, "-C", "licet-src", path.join(examples, "ts", `${name}.ts`)];
    this.#env = {
      JOURNAL: this.#journal,
      KAFKA_BROKERS: kafka.brokers.join(","),
      CONSUMER_GROUP: `example-${name}-${language}-${newId()}`,
      LICET_ADDRESS: licensing.address,
      LICET_API_KEY: secret,
    };
  }

  start(): void {
    const [program = "", ...args] = this.#command;
    const child = spawn(program, args, { env: { ...process.env, ...this.#env }, stdio: ["ignore", "ignore", "pipe"] });
    createInterface({ input: child.stderr }).on("line", (line) => this.told.push(line));
    // Not before `close`: with `exit` its last lines may still be on their way.
    child.once("close", (code) => {
      this.#exitCode = code;
    });
    this.#child = child;
  }

  /** Ends it by a signal, if it runs, and returns its exit code. */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return child?.exitCode ?? null;
    const gone = once(child, "exit");
    child.kill(signal);
    return ((await gone) as [number | null])[0];
  }

  /** Null as long as it runs or what it told may not all be here. */
  exitCode(): number | null {
    return this.#exitCode;
  }

  /** What took effect, in order. */
  async effects(): Promise<Effect[]> {
    return (await lines(this.#journal)).filter((line) => line.eventId !== undefined);
  }
}

/** The whole lines of a journal; a last one that is being written is left for later. */
async function lines(file: string): Promise<Effect[]> {
  const text = await readFile(file, "utf8").catch(() => "");
  const whole = text.slice(0, text.lastIndexOf("\n") + 1);
  return whole
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Effect);
}

async function createTenant(): Promise<string> {
  const operator = licensing.as(licensing.operatorKey);
  const tenant = { requestId: newId(), tenantId: "tradsys", name: "TradSys" };
  const { adminApiKeySecret } = await operator.tenants.createTenant(tenant);
  operator.close();
  return adminApiKeySecret;
}

async function furnish(): Promise<void> {
  await brand.catalog.createProduct({ requestId: newId(), product: "trading", name: "Trading" });
  await brand.catalog.createPlan({
    requestId: newId(),
    product: "trading",
    plan: "standard",
    name: "Standard",
    terms: { type: LicenseType.STANDARD, features: ["*"] },
  });
  for (const customerId of ["nile", "cairo", "giza"]) {
    await brand.customers.createCustomer({ requestId: newId(), customerId, name: customerId });
  }
}

/** A license's whole life, for each customer at the same time. */
async function live(rounds: number): Promise<void> {
  const one = async (customerId: string): Promise<void> => {
    const wanted = { requestId: newId(), customerId, product: "trading", plan: "standard" };
    const { license } = await brand.licenses.provisionLicense(wanted);
    const licenseId = license?.licenseId ?? "";
    for (let round = 0; round < rounds; round++) {
      await brand.licenses.suspendLicense({ requestId: newId(), licenseId });
      await brand.licenses.resumeLicense({ requestId: newId(), licenseId });
    }
    await brand.licenses.revokeLicense({ requestId: newId(), licenseId });
  };
  await Promise.all(["nile", "cairo", "giza"].map(one));
}

/** The history as licensing's database has it, by customer and version. */
async function history(): Promise<string[]> {
  const { rows } = await asSystem(licensing.database.databases, (tx) =>
    sql<{ line: string }>`
      SELECT stream || ' ' || version || ' ' || type || ' ' || event_id AS line
        FROM event WHERE stream LIKE 'customer/%' ORDER BY stream, version`.execute(tx),
  );
  return rows.map(({ line }) => line);
}

const inOrder = (effects: readonly Effect[]): string[] =>
  effects
    // Sorting keeps the order of what is equal: versions stay as they came.
    .toSorted((a, b) => (a.customerId < b.customerId ? -1 : Number(a.customerId > b.customerId)))
    .map(({ customerId, version, type, eventId }) => `customer/${customerId} ${version} ${type} ${eventId}`);

/** Waits until each consumer has as many effects as there are events, and compares them. */
async function expectAllToHaveTheHistory(): Promise<void> {
  const all = await history();
  for (const consumer of consumers) {
    let effects: Effect[] = [];
    const complete = async (): Promise<boolean> => {
      effects = await consumer.effects();
      return effects.length >= all.length;
    };
    await until(`${consumer.name} has all ${all.length} events`, complete, within).catch((error: unknown) => {
      throw new Error(`it has ${effects.length} and said:\n${consumer.told.join("\n")}`, { cause: error });
    });
    expect({ of: consumer.name, events: inOrder(effects) }).toEqual({ of: consumer.name, events: all });
  }
}

describeKafka(suite, () => {
  test("have each event once and in order, from the first one on", async () => {
    for (const consumer of consumers) consumer.start();
    await live(2);
    await expectAllToHaveTheHistory();
  });

  test("go on past a record that is no event, and say where it lies", async () => {
    const producer = new Kafka({ brokers: [...kafka.brokers], logLevel: logLevel.NOTHING }).producer();
    await producer.connect();
    const headers = { ce_id: "poison", ce_type: "licet.license.revoked.v1" };
    await producer.send({
      topic: "licet.license.v1",
      messages: [
        { key: "tradsys/nile", value: "\xff\xff", headers },
        { key: "tradsys/nile", value: "no event" },
      ],
    });
    await producer.disconnect();
    await live(1);
    await expectAllToHaveTheHistory();
    for (const consumer of consumers.filter(({ name }) => name.startsWith("kafka"))) {
      expect(consumer.told.filter((line) => line.includes('"poison"') && line.includes('"offset"'))).toHaveLength(2);
    }
  });

  test("killed while events come, they have each of them once when they are back", async () => {
    const counts = () => Promise.all(consumers.map(async (consumer) => (await consumer.effects()).length));
    const before = await counts();
    const living = live(10);
    const allWork = async () => (await counts()).every((count, index) => count > (before[index] ?? 0));
    await until("all work", allWork, within);
    await Promise.all(consumers.map((consumer) => consumer.end("SIGKILL")));
    await living;
    await licensing.drain();
    for (const consumer of consumers) consumer.start();
    // The port ends under those that subscribe, as in a deployment.
    await licensing.restartPort();
    await live(1);
    await expectAllToHaveTheHistory();
  }, 300_000);

  test("end by themselves when their key is revoked, and in order when they are told to", async () => {
    const [subscribers, members] = [
      consumers.filter(({ name }) => name.startsWith("stream")),
      consumers.filter(({ name }) => name.startsWith("kafka")),
    ];
    await brand.tenants.revokeApiKey({ requestId: newId(), keyId: subscribers[0]?.keyId ?? "" });
    for (const consumer of subscribers) {
      await until(`${consumer.name} ends`, () => consumer.exitCode() !== null, within);
      expect(consumer.exitCode()).toBe(1);
      expect(consumer.told.at(-1)).toMatch(/the consumer ends.*was revoked/);
    }
    expect(await Promise.all(members.map((consumer) => consumer.end("SIGTERM")))).toEqual(members.map(() => 0));
  });
});
