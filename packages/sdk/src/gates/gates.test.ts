/** The gates in the real frameworks: what passes, what is turned away, and how. */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { ErrorInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import express, { type Request } from "express";
import createFastify, { type FastifyRequest } from "fastify";
import { LicetError } from "../errors.ts";
import type { QuestionContext, Verdict } from "../verdict.ts";
import { createGate as createExpressGate } from "./express.ts";
import { createGate as createFastifyGate } from "./fastify.ts";
import { verdictOf } from "./gate.ts";
import { createGate as createGrpcGate } from "./grpc.ts";

const license = {
  id: "01930000-0000-7000-8000-000000000002",
  type: "STANDARD",
  product: "trading",
  plan: "standard",
  status: "ACTIVE",
  validUntilMs: undefined,
  graceUntilMs: undefined,
} as const;

function verdict(customerId: string, feature: string, differing: Partial<Verdict>): Verdict {
  const decision = differing.decision ?? "ALLOW";
  return {
    customerId,
    feature,
    decision,
    allowed: decision === "ALLOW",
    reason: "ALLOWED",
    license,
    violations: [],
    limitViolations: [],
    grant: undefined,
    version: 7n,
    stalenessMs: 0,
    degraded: false,
    usageStalenessMs: undefined,
    source: "SDK",
    ...differing,
  };
}

const unreachable = new LicetError({ code: "UNAVAILABLE", reason: "DEPENDENCY_UNAVAILABLE", message: "no connection" });
const uncomparable = new LicetError({
  code: "INVALID_ARGUMENT",
  reason: "INVALID_FIELD",
  message: 'context["users"]: must be a decimal',
});

/** What the customer of that name is answered; some in-process, some later, as clients in the two modes do. */
const answers: Readonly<Record<string, (feature: string) => Verdict | Promise<Verdict>>> = {
  nile: (feature) => verdict("nile", feature, {}),
  cairo: async (feature) => verdict("cairo", feature, {}),
  trial: (feature) =>
    verdict("trial", feature, {
      decision: "DENY",
      reason: "LIMIT_EXCEEDED",
      violations: ['"users" would be 6, above the limit of 5.'],
      limitViolations: [
        { metric: "users", current: "6", limit: 5n, window: "GAUGE", enforcement: "HARD", source: "CONTEXT" },
      ],
    }),
  lapsed: async (feature) =>
    verdict("lapsed", feature, {
      decision: "ALLOW_REDUCE_ONLY",
      reason: "LICENSE_EXPIRED",
      violations: ["The license expired."],
    }),
  old: (feature) => verdict("old", feature, { decision: "DENY", reason: "FACTS_TOO_OLD", violations: ["Too old."] }),
  unknown: (feature) => verdict("unknown", feature, { decision: "DENY", reason: "NO_FACTS", license: undefined }),
  foreign: (feature) => verdict("foreign", feature, { decision: "DENY", reason: "NOT_COVERED", license: undefined }),
  away: async () => {
    throw unreachable;
  },
  garbled: () => {
    throw uncomparable;
  },
};

let asked: [customerId: string, feature: string, context?: QuestionContext][] = [];
beforeEach(() => {
  asked = [];
});

const licet = {
  check(customerId: string, feature: string, context?: QuestionContext): Verdict | Promise<Verdict> {
    asked.push(context === undefined ? [customerId, feature] : [customerId, feature, context]);
    const answer = answers[customerId];
    if (answer === undefined) throw new Error(`no answer for ${customerId}`);
    return answer(feature);
  },
};

/** What one call came to, in any framework. */
interface Outcome {
  readonly status: number;
  /** The plan of the license in the request's context, where the handler was reached. */
  readonly plan?: string | null;
  readonly body: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string | null>>;
}

interface Framework {
  /** Calls as a customer. `/orders` needs `trading`, `/lenient` lets through what nobody answers. */
  call(path: "/orders" | "/close" | "/lenient" | "/features/egx", customerId?: string): Promise<Outcome>;
  stop(): Promise<void>;
}

async function callHttp(port: number, path: string, customerId?: string): Promise<Outcome> {
  const headers = { "content-type": "application/json", ...(customerId !== undefined && { "x-customer": customerId }) };
  const url = `http://127.0.0.1:${port}${path}`;
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ users: 6 }) });
  const body = (await response.json()) as Outcome["body"] & { plan?: string | null };
  const names = ["content-type", "retry-after"];
  const told = Object.fromEntries(names.map((name) => [name, response.headers.get(name)]));
  return { status: response.status, plan: body.plan ?? null, body, headers: told };
}

async function startExpress(): Promise<Framework> {
  const app = express();
  app.use(express.json());
  const options = { licet, customerId: (request: Request) => request.get("x-customer") };
  const { requireFeature } = createExpressGate(options);
  const reach = (request: Request, response: { json(body: unknown): unknown }) =>
    response.json({ plan: verdictOf(request)?.license?.plan ?? null });
  app.post("/orders", requireFeature("trading", { context: ({ body }) => ({ users: body.users }) }), reach);
  app.post("/close", requireFeature("trading", { reduces: ({ path }) => path === "/close" }), reach);
  app.post(
    "/features/:exchange",
    requireFeature(({ params }) => `exchange_${params.exchange}`),
    reach,
  );
  app.post("/lenient", createExpressGate({ ...options, whenUnanswered: "allow" }).requireFeature("trading"), reach);
  app.use((error: Error, _request: unknown, response: express.Response, _next: unknown) => {
    response.status(500).json({ thrown: error.message });
  });
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  // A port that is listened on has an address with a number.
  const { port } = server.address() as AddressInfo;
  return {
    call: (path, customerId) => callHttp(port, path, customerId),
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

async function startFastify(): Promise<Framework> {
  const app = createFastify();
  const options = {
    licet,
    customerId: (request: FastifyRequest) => request.headers["x-customer"]?.toString(),
  };
  const { requireFeature } = createFastifyGate(options);
  const reach = async (request: FastifyRequest) => ({ plan: verdictOf(request)?.license?.plan ?? null });
  // The body is there behind its parser only.
  const context = ({ body }: FastifyRequest) => ({ users: (body as { users: number }).users });
  app.post("/orders", { preHandler: requireFeature("trading", { context }) }, reach);
  app.post("/close", { onRequest: requireFeature("trading", { reduces: () => true }) }, reach);
  const exchange = ({ params }: FastifyRequest) => `exchange_${(params as { exchange: string }).exchange}`;
  app.post("/features/:exchange", { onRequest: requireFeature(exchange) }, reach);
  const lenient = createFastifyGate({ ...options, whenUnanswered: "allow" });
  app.post("/lenient", { onRequest: lenient.requireFeature("trading") }, reach);
  app.setErrorHandler<Error>((error, _request, reply) => reply.code(500).send({ thrown: error.message }));
  await app.listen({ port: 0, host: "127.0.0.1" });
  const { port } = app.server.address() as AddressInfo;
  return { call: (path, customerId) => callHttp(port, path, customerId), stop: () => app.close() };
}

const text = { serialize: (value: string) => Buffer.from(value), deserialize: (bytes: Buffer) => bytes.toString() };
const methods = ["/orders", "/close", "/lenient", "/features/egx", "/open"] as const;
const pathOf = (name: string) => `/acme.Trading${name}`;

async function startGrpc(): Promise<Framework & { open(): Promise<Outcome> }> {
  const options = {
    licet,
    customerId: ({ metadata }: { metadata: grpc.Metadata }) => metadata.get("x-customer")[0]?.toString(),
  };
  const gate = createGrpcGate(options);
  const context = () => ({ users: 6 });
  const only = (name: string, feature: string) => (path: string) => (path === pathOf(name) ? feature : undefined);
  const server = new grpc.Server({
    interceptors: [
      gate.requireFeatures({ [pathOf("/orders")]: "trading" }, { context }),
      gate.requireFeatures({ [pathOf("/close")]: "trading" }, { reduces: ({ path }) => path === pathOf("/close") }),
      gate.requireFeatures(only("/features/egx", "exchange_egx")),
      createGrpcGate({ ...options, whenUnanswered: "allow" }).requireFeatures(only("/lenient", "trading")),
    ],
  });
  const definition = Object.fromEntries(
    methods.map((name) => [
      name,
      {
        path: pathOf(name),
        requestStream: false,
        responseStream: false,
        requestSerialize: text.serialize,
        requestDeserialize: text.deserialize,
        responseSerialize: text.serialize,
        responseDeserialize: text.deserialize,
      },
    ]),
  );
  const handle: grpc.handleUnaryCall<string, string> = ({ metadata, request }, reply) =>
    reply(null, JSON.stringify({ plan: verdictOf(metadata)?.license?.plan ?? null, request }));
  server.addService(definition, Object.fromEntries(methods.map((name) => [name, handle])));
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const call = (name: string, customerId?: string): Promise<Outcome> =>
    new Promise((resolve) => {
      const metadata = new grpc.Metadata();
      if (customerId !== undefined) metadata.set("x-customer", customerId);
      const { serialize, deserialize } = text;
      client.makeUnaryRequest(pathOf(name), serialize, deserialize, "hello", metadata, (error, reply) => {
        if (error === null) {
          const body = JSON.parse(reply ?? "");
          return resolve({ status: 200, plan: body.plan, body, headers: {} });
        }
        resolve({ status: toHttp[error.code] ?? 500, body: toBody(error), headers: {} });
      });
    });
  return {
    call,
    open: () => call("/open"),
    async stop() {
      client.close();
      server.forceShutdown();
    },
  };
}

const toHttp: Readonly<Partial<Record<grpc.status, number>>> = {
  [grpc.status.PERMISSION_DENIED]: 403,
  [grpc.status.UNAVAILABLE]: 503,
  [grpc.status.INVALID_ARGUMENT]: 400,
};

/** The parts of the problem that a gRPC status carries. */
function toBody({ metadata, details }: grpc.ServiceError): Record<string, unknown> {
  const [bytes] = metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(bytes)) return { detail: details };
  const [packed] = fromBinary(StatusSchema, bytes).details;
  const info = packed && anyUnpack(packed, ErrorInfoSchema);
  return { ...info?.metadata, reason: info?.reason, detail: details };
}

describe.each([
  ["express", startExpress],
  ["fastify", startFastify],
  ["grpc-js", startGrpc],
])("%s", (name, start: () => Promise<Framework>) => {
  let framework: Framework;
  beforeAll(async () => {
    framework = await start();
  });
  afterAll(() => framework.stop());

  test.each(["nile", "cairo"])("%s passes, and the handler has the license", async (customerId) => {
    expect(await framework.call("/orders", customerId)).toMatchObject({ status: 200, plan: "standard" });
    expect(asked).toEqual([[customerId, "trading", { users: 6 }]]);
  });

  test("the feature may depend on the request", async () => {
    expect(await framework.call("/features/egx", "nile")).toMatchObject({ status: 200 });
    expect(asked).toEqual([["nile", "exchange_egx"]]);
  });

  test("what the license denies is refused, with the reason", async () => {
    const outcome = await framework.call("/orders", "trial");
    expect(outcome).toMatchObject({
      status: 403,
      body: {
        error: "feature_not_licensed",
        feature: "trading",
        reason: "LIMIT_EXCEEDED",
        decision: "DENY",
        detail: '"users" would be 6, above the limit of 5.',
      },
    });
    if (name === "grpc-js") return;
    expect(outcome.headers).toEqual({ "content-type": "application/problem+json; charset=utf-8", "retry-after": null });
    expect(outcome.body).toMatchObject({
      type: "https://licet.dev/problems/feature-not-licensed",
      title: "The license does not allow this.",
      status: 403,
      violations: ['"users" would be 6, above the limit of 5.'],
      limits: [{ metric: "users", current: "6", limit: "5", window: "GAUGE", enforcement: "HARD" }],
    });
  });

  test("a license that may only reduce lets pass only what reduces", async () => {
    const body = { error: "feature_not_licensed", decision: "ALLOW_REDUCE_ONLY", reason: "LICENSE_EXPIRED" };
    expect(await framework.call("/orders", "lapsed")).toMatchObject({ status: 403, body });
    expect(await framework.call("/close", "lapsed")).toMatchObject({ status: 200, plan: "standard" });
    expect(await framework.call("/close", "trial")).toMatchObject({ status: 403 });
  });

  test("where nobody answers, it is turned away for now, or let through where that was chosen", async () => {
    for (const [customerId, reason] of [
      ["away", "DEPENDENCY_UNAVAILABLE"],
      ["unknown", "NO_FACTS"],
    ] as const) {
      const outcome = await framework.call("/orders", customerId);
      expect(outcome).toMatchObject({ status: 503, body: { error: "license_check_failed", reason } });
      if (name !== "grpc-js") expect(outcome.headers["retry-after"]).toBe("1");
      expect(await framework.call("/lenient", customerId)).toMatchObject({ status: 200, plan: null });
    }
    // The feature's fail mode has answered: that is not for the gate to overrule.
    const body = { error: "license_check_failed", reason: "FACTS_TOO_OLD" };
    expect(await framework.call("/lenient", "old")).toMatchObject({ status: 503, body });
    expect(await framework.call("/lenient", "trial")).toMatchObject({ status: 403 });
    // The client would never know more of this one.
    const foreign = { error: "feature_not_licensed", reason: "NOT_COVERED" };
    expect(await framework.call("/lenient", "foreign")).toMatchObject({ status: 403, body: foreign });
  });

  test.each([undefined, ""])("a request of no customer (%j) is refused, and nobody is asked", async (customerId) => {
    const body = { error: "customer_unknown", reason: "CUSTOMER_UNKNOWN", feature: "trading" };
    expect(await framework.call("/lenient", customerId)).toMatchObject({ status: 403, body });
    expect(asked).toEqual([]);
  });

  test("a value that can't be compared is the caller's mistake", async () => {
    const body = { error: "invalid_context", reason: "INVALID_FIELD", detail: 'context["users"]: must be a decimal' };
    expect(await framework.call("/lenient", "garbled")).toMatchObject({ status: 400, body });
  });

  test("what is no error of the check is the framework's, and does not pass", async () => {
    const { status, body } = await framework.call("/lenient", "nobody-planned-this");
    expect(status).toBe(500);
    expect(body).toEqual(
      name === "grpc-js" ? { detail: "the license gate failed" } : { thrown: "no answer for nobody-planned-this" },
    );
  });
});

test("a gRPC path that no call can have is refused", () => {
  const gate = createGrpcGate({ licet, customerId: () => "nile-brokers" });
  for (const path of ["acme.Orders/Place", "/acme.Orders", "PlaceOrder", "/acme.Orders/Place/"]) {
    expect(() => gate.requireFeatures({ [path]: "egx_access" })).toThrow(
      `features[${JSON.stringify(path)}]: is no path of a method`,
    );
  }
});

test("a gRPC method without a feature is open", async () => {
  const framework = await startGrpc();
  expect(await framework.open()).toMatchObject({ status: 200, plan: null, body: { request: "hello" } });
  expect(asked).toEqual([]);
  await framework.stop();
});
