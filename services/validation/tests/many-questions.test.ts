import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { Enforcement, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  type Answer,
  Decision,
  DecisionReason,
  type ValidateFeatureRequestSchema,
  type ValidateFeatureResponse,
  type ValidateStreamRequestSchema,
  type ValidationService,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { fromStatus } from "@licet/platform/errors";
import { until } from "@licet/platform/testing/until";
import { catalog, createHarness, dayMs, type Harness, license, snapshot, startMs, unreachable } from "./harness.ts";

type Question = MessageInitShape<typeof ValidateFeatureRequestSchema>;
type Questions = MessageInitShape<typeof ValidateStreamRequestSchema>;

let harness: Harness;
beforeEach(async () => {
  // Time enough for a look-up that a test holds up until its questions are asked.
  harness = await createHarness({ lookUpTimeoutMs: 4_000 });
  const { catalogs, snapshots } = harness.licensing;
  catalogs.push(catalog(1n, ["basic_trading", "egx_access", "adx_access"]));
  const limits = [{ metric: "users", maximum: 5n, window: LimitWindow.GAUGE, enforcement: Enforcement.HARD }];
  snapshots.set("tradsys/nile-brokers", snapshot("nile-brokers", 7n, license({ limits })));
  snapshots.set("tradsys/frozen-desk", snapshot("frozen-desk", 2n, license({ status: LicenseStatus.SUSPENDED })));
  const other = license({
    licenseId: "0197a000-0000-7000-8000-000000000002",
    features: ["egx_access"],
    validUntil: timestampFromMs(startMs + dayMs),
  });
  snapshots.set("tradsys/two-licenses", snapshot("two-licenses", 3n, license(), other));
  await harness.validation.start();
});
afterEach(() => harness.close());

const transports = ["grpc", "local"] as const;
const clientOf = (transport: (typeof transports)[number]): Client<typeof ValidationService> =>
  transport === "grpc" ? harness.client() : harness.localClient();

const features = ["basic_trading", "egx_access", "unknown_feature", "adx_access", "basic_trading"];
const customers = ["nile-brokers", "frozen-desk", "two-licenses", "nobody"];

/** What ValidateFeature says, question by question: the answer, or the error. Who told it is another one the next time. */
async function oneByOne(client: Client<typeof ValidationService>, questions: readonly Question[]): Promise<unknown[]> {
  const outcomes: unknown[] = [];
  for (const question of questions) {
    outcomes.push(await client.validateFeature(question).then(told, ({ code, reason }) => ({ code, reason })));
  }
  return outcomes;
}

function told({ source: _, ...reply }: ValidateFeatureResponse): unknown {
  return reply;
}

/** What an answer among many says, in the same form. */
function outcomeOf({ result }: Answer): unknown {
  if (result.case === "response") return told(result.value);
  if (result.case === undefined) return undefined;
  const { code, reason } = fromStatus(result.value);
  return { code, reason };
}

const questions: readonly Question[] = [
  ...customers.flatMap((customerId) => features.map((feature) => ({ customerId, feature }))),
  { customerId: "nile-brokers", feature: "basic_trading", context: { users: "6", product: "trading" } },
  { customerId: "nile-brokers", feature: "basic_trading", context: { product: "research" } },
  { customerId: "nile-brokers", feature: "Basic Trading" },
  { customerId: "nile\0brokers", feature: "basic_trading" },
  { customerId: "", feature: "basic_trading" },
  { customerId: "nile-brokers", feature: "basic_trading", context: { users: "many" } },
  { customerId: "قاهرة", feature: "basic_trading" },
  { customerId: "nile-brokers", feature: "basic_trading", atLeast: { customerId: "nile-brokers", version: 7n } },
  { customerId: "nile-brokers", feature: "basic_trading", atLeast: { customerId: "frozen-desk", version: 1n } },
];

describe.each(transports)("over %s", (transport) => {
  test("CheckFeatures says of each feature what ValidateFeature says, with each license once", async () => {
    const client = clientOf(transport);
    for (const customerId of [...customers, ...customers]) {
      const reply = await client.checkFeatures({ customerId, features });
      const single = await Promise.all(features.map((feature) => client.validateFeature({ customerId, feature })));
      expect([...reply.verdicts].map((byte) => [byte >> 6, byte & 0x3f])).toEqual(
        single.map(({ decision, reason }) => [decision, reason]),
      );
      const { licenses, licenseRefs, version, degraded } = reply;
      expect(new Set(licenses.map(({ licenseId }) => licenseId)).size).toBe(licenses.length);
      const without: DecisionReason[] = [DecisionReason.NO_LICENSE, DecisionReason.FEATURE_NOT_IN_PLAN];
      const decided = single.map(({ reason }, index) =>
        licenseRefs.length > 0
          ? licenses[(licenseRefs[index] ?? 0) - 1]
          : without.includes(reason)
            ? undefined
            : licenses[0],
      );
      expect(decided).toEqual(single.map(({ license }) => license));
      expect({ version, degraded }).toEqual({ version: single[0]?.version, degraded: false });
    }
  });

  test("CheckFeatures compares the context with limits, narrows by product and names a field that is wrong", async () => {
    const client = clientOf(transport);
    const ask = (context: Record<string, string>, asked = features) =>
      client.checkFeatures({ customerId: "nile-brokers", features: asked, context });
    const denied = (Decision.DENY << 6) | DecisionReason.LIMIT_EXCEEDED;
    expect((await ask({ users: "6" }, ["basic_trading"])).verdicts).toEqual(Uint8Array.of(denied));
    const none = (Decision.DENY << 6) | DecisionReason.NO_LICENSE;
    expect((await ask({ product: "research" }, ["basic_trading"])).verdicts).toEqual(Uint8Array.of(none));
    await expect(ask({ users: "many" })).rejects.toMatchObject({ violations: [{ field: 'context["users"]' }] });
    await expect(ask({}, ["basic_trading", "No Code"])).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      violations: [{ field: "features[1]" }],
    });
    await expect(ask({}, [])).rejects.toMatchObject({ violations: [{ field: "features" }] });
  });

  test("BatchValidate answers each question as ValidateFeature, also those that it refuses", async () => {
    const client = clientOf(transport);
    const { answers } = await client.batchValidate({ questions: [...questions] });
    expect(answers.map(outcomeOf)).toEqual(await oneByOne(client, questions));
    const fields = answers.map(({ result }) =>
      result.case === "error" ? fromStatus(result.value).violations.map(({ field }) => field) : undefined,
    );
    const paths = fields.flatMap((names) => names ?? []);
    expect(paths).toEqual([
      "questions[22].feature",
      "questions[23].customer_id",
      "questions[24].customer_id",
      'questions[25].context["users"]',
      "questions[28]",
    ]);
    await expect(client.batchValidate({ questions: [] })).rejects.toMatchObject({
      violations: [{ field: "questions" }],
    });
  });

  test("BatchValidate has an outage in the places of those whom memory does not know", async () => {
    const client = clientOf(transport);
    // Afterwards the caller's key is known.
    await client.validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
    harness.licensing.before = unreachable;
    const asked = ["nile-brokers", "late", "frozen-desk"].map((customerId) => ({
      customerId,
      feature: "basic_trading",
    }));
    const { answers } = await client.batchValidate({ questions: asked });
    expect(answers.map(outcomeOf)).toMatchObject([
      { valid: true },
      { code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE" },
      { reason: DecisionReason.LICENSE_SUSPENDED },
    ]);
  });

  test("ValidateStream answers in order over all messages, errors in their places, and goes on", async () => {
    const client = clientOf(transport);
    const late = { customerId: "late", feature: "basic_trading" };
    harness.licensing.snapshots.set("tradsys/late", snapshot("late", 4n, license()));
    const looked = Promise.withResolvers<void>();
    harness.licensing.before = (what) => (what === "tradsys/late" ? looked.promise : Promise.resolve());
    async function* ask(): AsyncGenerator<Questions> {
      // The first one takes long; the others are not told before it.
      yield { questions: [late] };
      for (const question of questions) yield { questions: [question] };
      looked.resolve();
      yield { questions: [...questions] };
    }
    const answers: Answer[] = [];
    for await (const reply of client.validateStream(ask())) answers.push(...reply.answers);
    expect(answers.map(outcomeOf)).toEqual(await oneByOne(client, [late, ...questions, ...questions]));
  });

  test("ValidateStream reads no further than its reader lets it", async () => {
    const client = clientOf(transport);
    const { customerId, feature } = { customerId: "nile-brokers", feature: "unknown_feature" };
    let asked = 0;
    async function* ask(): AsyncGenerator<Questions> {
      for (;;) {
        asked += 100;
        yield { questions: Array.from({ length: 100 }, () => ({ customerId, feature })) };
      }
    }
    const leaving = new AbortController();
    const replies = client.validateStream(ask(), { signal: leaving.signal })[Symbol.asyncIterator]();
    let answered = (await replies.next()).value?.answers.length ?? 0;
    let before = -1;
    await until("nothing moves any more", async () => {
      const last = before;
      before = asked;
      for (let i = 0; i < 5; i++) await client.validateFeature({ customerId, feature });
      return before === last;
    });
    // What lies between are the line's 500 answers and the buffers of two connections of HTTP/2.
    expect(asked).toBeLessThan(100_000);
    const held = asked;
    while (answered < held) answered += (await replies.next()).value?.answers.length ?? 0;
    expect(asked).toBeGreaterThan(held);
    leaving.abort();
  });

  test("ValidateStream refuses a message without questions", async () => {
    async function* ask(): AsyncGenerator<Questions> {
      yield { questions: [{ customerId: "nile-brokers", feature: "basic_trading" }] };
      yield { questions: [] };
    }
    const replies = clientOf(transport).validateStream(ask())[Symbol.asyncIterator]();
    expect((await replies.next()).value?.answers).toHaveLength(1);
    await expect(replies.next()).rejects.toMatchObject({ violations: [{ field: "questions" }] });
  });
});

test("calls that memory answers go by the shortcut, and what is wrong with them is said by the pipeline", async () => {
  const { key } = harness.newKey("tradsys");
  const client = harness.client(key);
  const ask = () => client.validateFeature({ customerId: "nile-brokers", feature: "basic_trading" });
  const check = () => client.checkFeatures({ customerId: "nile-brokers", features });
  const [first] = [await ask(), await check()];
  const before = harness.counts.authenticated;
  for (let i = 0; i < 5; i++) {
    expect(await ask()).toEqual(first);
    await check();
  }
  expect(harness.counts.authenticated).toBe(before);
  await expect(client.validateFeature({ customerId: "", feature: "x" })).rejects.toMatchObject({
    violations: [{ field: "customer_id" }],
  });
  expect(harness.counts.authenticated).toBe(before + 1);
});
