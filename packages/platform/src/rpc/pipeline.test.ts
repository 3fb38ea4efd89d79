import { Writable } from "node:stream";
import { create } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { describe, expect, test } from "@jest/globals";
import { Health } from "@licet/contracts/grpc/health/v1/health_pb";
import { ServiceError } from "../errors.ts";
import { createHealth } from "../health.ts";
import { createLogger } from "../logging.ts";
import {
  type EchoHandlers,
  type EchoPipelineOptions,
  echoBinding,
  echoKeys,
  echoPipeline,
} from "../testing/echo-server.ts";
import { EchoRequestSchema, type EchoResponse, EchoService } from "../testing/echo-service.ts";
import { until } from "../testing/until.ts";
import { readTrustedProxies, type TrustedProxies } from "./address.ts";
import type { Call } from "./call.ts";
import { within } from "./client.ts";
import { createLocalTransport } from "./local.ts";
import type { Pipeline } from "./pipeline.ts";

type EchoClient = Client<typeof EchoService>;

/** The pipeline as it takes calls of other processes, which arrive over gRPC. */
function fromOutside(pipeline: Pipeline): Pipeline {
  return {
    routes: (binding) =>
      pipeline.routes(binding).map((route) => ({
        ...route,
        start: (exchange) => route.start({ ...exchange, transport: "grpc" }),
      })),
  };
}

/** A client in another process of the echo service with some handlers replaced, which has a pipeline of its own. */
function echoClient(
  handlers: Partial<EchoHandlers> = {},
  options: EchoPipelineOptions & { key?: string } = {},
): EchoClient {
  const { key = echoKeys.allowed } = options;
  const headers = key === "" ? undefined : { authorization: `Bearer ${key}` };
  const pipeline = fromOutside(echoPipeline(options));
  return createClient(EchoService, createLocalTransport({ bindings: [echoBinding(handlers)], pipeline, headers }));
}

async function all(replies: AsyncIterable<EchoResponse>): Promise<EchoResponse[]> {
  const received: EchoResponse[] = [];
  for await (const reply of replies) received.push(reply);
  return received;
}

/** A handler that stays in its work until the test lets it go, whatever happens to the call. */
function stubborn() {
  const gate = Promise.withResolvers<void>();
  const calls: Call[] = [];
  const handler: EchoHandlers["echo"] = async (_ctx, call) => {
    calls.push(call);
    await gate.promise;
    return {};
  };
  return { gate, calls, handler };
}

describe("who may call", () => {
  test("nobody without a credential", async () => {
    await expect(echoClient({}, { key: "" }).echo({ text: "x" })).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
      reason: "CREDENTIAL_MISSING",
    });
  });

  test("nobody without the method's scope, which the error names", async () => {
    const call = echoClient({}, { key: echoKeys.powerless }).echo({ text: "x" });
    await expect(call).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "SCOPE_MISSING",
      metadata: { required_scope: "echo:call" },
    });
  });

  test("nobody at all when the method declares no scope", async () => {
    await expect(echoClient().forgotten({ text: "x" })).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  });

  test("streams are judged before a handler runs", async () => {
    let ran = false;
    const client = echoClient(
      {
        async *expand() {
          ran = true;
          yield {};
        },
      },
      { key: echoKeys.powerless },
    );
    await expect(all(client.expand({ text: "x" }))).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    expect(ran).toBe(false);
  });

  test("the credential is judged before the request", async () => {
    await expect(echoClient({}, { key: "wrong" }).echo({ text: "" })).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
    });
  });
});

describe("a request that breaks rules", () => {
  test("is refused with every field by its path", async () => {
    const error = await echoClient()
      .echo({ text: "", count: -1, parts: [{ quantity: 1 }, { quantity: -2 }] })
      .catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_FIELD" });
    const { violations, message } = error as ServiceError;
    expect(violations.map(({ field }) => field)).toEqual(["text", "count", "parts[1].quantity"]);
    expect(message).toContain("parts[1].quantity: must be greater than or equal to 0");
  });

  test("is refused for an unknown enum value", async () => {
    await expect(echoClient().echo({ text: "x", color: 7 })).rejects.toMatchObject({
      violations: [{ field: "color" }],
    });
  });

  test("is refused for a time that no calendar has", async () => {
    const parts = [{ quantity: 1, at: { seconds: 253_402_300_800n } }];
    await expect(echoClient().echo({ text: "x", parts })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      message: expect.stringContaining("years 0001 to 9999"),
      violations: [{ field: "parts[0].at" }],
    });
  });

  test("is refused, not a fault of ours, when a rule can't be judged for its values", async () => {
    await expect(echoClient().echo({ text: "x", discount: 100 })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "INVALID_FIELD",
      message: expect.stringContaining("a rule can't be judged"),
    });
  });

  test("ends a stream of requests where it comes", async () => {
    const seen: string[] = [];
    const client = echoClient({
      async collect(_ctx, _call, requests) {
        for await (const { text } of requests) seen.push(text);
        return {};
      },
    });
    async function* requests() {
      yield { text: "good" };
      yield { text: "" };
      yield { text: "never seen" };
    }
    await expect(client.collect(requests())).rejects.toMatchObject({ reason: "INVALID_FIELD" });
    expect(seen).toEqual(["good"]);
  });

  test("names at most eight violations and no text of any length", async () => {
    const parts = Array.from({ length: 100 }, () => ({ quantity: -1 }));
    const error = await echoClient()
      .echo({ text: "x", parts })
      .catch((caught: ServiceError) => caught);
    expect((error as ServiceError).violations).toHaveLength(8);
  });
});

describe("errors of a handler", () => {
  const failing = (thrown: unknown, logged?: string[]) => {
    const destination = new Writable({
      write(chunk, _encoding, done) {
        logged?.push(String(chunk));
        done();
      },
    });
    const logger = createLogger({ level: "error", name: "test", destination });
    return echoClient({ echo: () => Promise.reject(thrown) }, { logger }).echo({ text: "x" });
  };

  test("a ServiceError arrives with its reason, without its cause", async () => {
    const thrown = new ServiceError({ code: "NOT_FOUND", reason: "GONE", message: "gone", cause: new Error("SQL") });
    const error = await failing(thrown).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(ServiceError);
    expect(error).toMatchObject({ code: "NOT_FOUND", reason: "GONE", message: "gone" });
    expect((error as ServiceError).cause).toBeUndefined();
  });

  test("anything else is masked, and logged with its causes", async () => {
    const logged: string[] = [];
    const call = failing(new Error("outer detail", { cause: new Error("inner detail") }), logged);
    await expect(call).rejects.toMatchObject({ code: "INTERNAL", reason: "INTERNAL", message: "internal error" });
    expect(logged.join()).toContain("outer detail");
    expect(logged.join()).toContain("inner detail");
    expect(logged.join()).toContain("testing.v1.EchoService/Echo");
  });

  test.each([
    ["40001", "ABORTED", "CONFLICT_RETRY"],
    ["40P01", "ABORTED", "CONFLICT_RETRY"],
    ["55P03", "ABORTED", "CONFLICT_RETRY"],
    ["57P01", "UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"],
    ["08006", "UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"],
    ["ECONNREFUSED", "UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"],
    // Statement timeout, disk full, out of memory, read-only, idle in transaction too long, a file that can't be read.
    ...["57014", "53100", "53200", "25006", "25P03", "58030"].map((state) => [
      state,
      "UNAVAILABLE",
      "DEPENDENCY_UNAVAILABLE",
    ]),
    // A duplicate, and a statement in a transaction that has failed already: mistakes of ours.
    ["23505", "INTERNAL", "INTERNAL"],
    ["25P02", "INTERNAL", "INTERNAL"],
  ])("a driver's %s becomes %s %s, also as a cause", async (code, expected, reason) => {
    const driver = Object.assign(new Error("driver text"), { code });
    for (const thrown of [driver, new Error("wrapped", { cause: driver })]) {
      const error = await failing(thrown).catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: expected, reason });
      expect((error as Error).message).not.toContain("driver text");
    }
  });

  test("something thrown that is no error, or a circle of causes, is masked too", async () => {
    const circle = new Error("round");
    circle.cause = circle;
    for (const thrown of ["text", undefined, circle]) {
      await expect(failing(thrown)).rejects.toMatchObject({ message: "internal error" });
    }
  });
});

describe("overload", () => {
  test("a call too many is refused at once, told when to come back, and let in after the others", async () => {
    const { gate, calls, handler } = stubborn();
    const client = echoClient({ echo: handler }, { maxConcurrent: 2 });
    const running = [client.echo({ text: "1" }), client.echo({ text: "2" })];
    await until("both handlers run", () => calls.length === 2);
    const refused = await client.echo({ text: "3" }).catch((caught: unknown) => caught);
    expect(refused).toMatchObject({ code: "UNAVAILABLE", reason: "OVERLOADED", retryAfterMs: expect.any(Number) });
    gate.resolve();
    await Promise.all(running);
    await client.echo({ text: "4" });
  });

  test("a handler that goes on after its caller left keeps its slot", async () => {
    const { gate, calls, handler } = stubborn();
    const client = echoClient({ echo: handler }, { maxConcurrent: 3 });
    for (let i = 0; i < 50; i++) {
      const controller = new AbortController();
      const call = client.echo({ text: "x" }, { signal: controller.signal });
      call.catch(() => {});
      await new Promise((resolve) => setImmediate(resolve));
      controller.abort();
      await expect(call).rejects.toMatchObject({ code: expect.stringMatching(/CANCELLED|UNAVAILABLE/) });
    }
    expect(calls.length).toBe(3);
    gate.resolve();
    await until("a slot is free again", () =>
      client.echo({ text: "x" }).then(
        () => true,
        () => false,
      ),
    );
  });

  test("a caller that leaves before the handler begins never makes it begin", async () => {
    const { calls, handler } = stubborn();
    const client = echoClient({ echo: handler });
    const controller = new AbortController();
    const call = client.echo({ text: "x" }, { signal: controller.signal });
    controller.abort();
    await expect(call).rejects.toMatchObject({ code: "CANCELLED" });
    await new Promise((resolve) => setImmediate(resolve));
    expect(calls).toHaveLength(0);
  });

  test("a flood of one area leaves the others alone", async () => {
    const { gate, calls, handler } = stubborn();
    const pipeline = fromOutside(echoPipeline({ maxConcurrent: 1 }));
    const echo = echoBinding({ echo: handler });
    const elsewhere = { ...createHealth([echo]).binding, open: false };
    const headers = { authorization: `Bearer ${echoKeys.allowed}` };
    const transport = createLocalTransport({ bindings: [echo, elsewhere], pipeline, headers });
    const client = createClient(EchoService, transport);
    const running = client.echo({ text: "x" });
    await until("the only slot is taken", () => calls.length === 1);
    await expect(client.echo({ text: "x" })).rejects.toMatchObject({ reason: "OVERLOADED" });
    // It had a slot: what it lacks is looked at behind that.
    await expect(createClient(Health, transport).check({})).rejects.toMatchObject({ reason: "SCOPE_MISSING" });
    gate.resolve();
    await running;
  });

  test("a handler that goes on after its deadline keeps its slot", async () => {
    const { gate, calls, handler } = stubborn();
    const client = echoClient({ hurry: handler }, { maxConcurrent: 1 });
    await expect(client.hurry({ text: "x" })).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await expect(client.hurry({ text: "x" })).rejects.toMatchObject({ reason: "OVERLOADED" });
    expect(calls.length).toBe(1);
    gate.resolve();
    await until("the slot is free again", () =>
      client.hurry({ text: "x" }).then(
        () => true,
        () => false,
      ),
    );
  });

  /** A pipeline of two slots whose `echo` calls `hurry` inside the process, and a client for `echo` outside. */
  function nested(hurry: EchoHandlers["hurry"], gate: Promise<void>) {
    const headers = { authorization: `Bearer ${echoKeys.allowed}` };
    const pipeline = echoPipeline({ maxConcurrent: 2 });
    const inside = createLocalTransport({ bindings: [echoBinding({ hurry })], pipeline, headers });
    const inner = createClient(EchoService, inside);
    const begun: Call[] = [];
    const echo: EchoHandlers["echo"] = async (_ctx, call, { text }) => {
      begun.push(call);
      await gate;
      return { text: (await inner.hurry({ text }, { signal: call.signal })).text };
    };
    const bindings = [echoBinding({ echo })];
    const outside = createLocalTransport({ bindings, pipeline: fromOutside(pipeline), headers });
    return { begun, client: createClient(EchoService, outside) };
  }

  test("calls that hold all slots get the calls through that they make inside the process", async () => {
    const gate = Promise.withResolvers<void>();
    const { begun, client } = nested(async (_ctx, _call, { text }) => ({ text }), gate.promise);
    const running = ["1", "2"].map((text) => client.echo({ text }));
    await until("both outer handlers run", () => begun.length === 2);
    await expect(client.echo({ text: "3" })).rejects.toMatchObject({ reason: "OVERLOADED" });
    gate.resolve();
    expect((await Promise.all(running)).map(({ text }) => text)).toEqual(["1", "2"]);
  });

  test("an inner handler that goes on after its caller was answered takes a slot", async () => {
    const { gate, calls, handler } = stubborn();
    const { client } = nested(handler, Promise.resolve());
    for (const text of ["1", "2"]) {
      await expect(client.echo({ text })).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    }
    await expect(client.echo({ text: "3" })).rejects.toMatchObject({ reason: "OVERLOADED" });
    expect(calls.length).toBe(2);
    gate.resolve();
    await until("the slots are free again", () =>
      client.echo({ text: "4" }).then(
        () => true,
        () => false,
      ),
    );
  });

  test("streams have slots of their own", async () => {
    const { gate, calls, handler } = stubborn();
    const client = echoClient({ echo: handler }, { maxConcurrent: 1, maxStreams: 1 });
    const unary = client.echo({ text: "x" });
    await until("the handler runs", () => calls.length === 1);
    const stream = client.expand({ text: "x", count: 2 })[Symbol.asyncIterator]();
    await expect(stream.next()).resolves.toMatchObject({ done: false });
    await expect(all(client.expand({ text: "x", count: 2 }))).rejects.toMatchObject({ reason: "OVERLOADED" });
    gate.resolve();
    await unary;
  });
});

describe("deadlines", () => {
  test("the method's own is answered while the handler still works, whose signal says so", async () => {
    const { gate, calls, handler } = stubborn();
    const call = echoClient({ hurry: handler }).hurry({ text: "x" });
    await expect(call).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED", reason: "DEADLINE_EXCEEDED" });
    expect(calls[0]?.signal.reason).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    gate.resolve();
  });

  test("the caller's counts, up to 5 s, and the method's when there is none", async () => {
    let at = 0;
    const client = echoClient({
      async batch(_ctx, { deadlineAt = 0 }) {
        at = deadlineAt;
        return {};
      },
    });
    for (const [options, ms] of [
      [{ timeoutMs: 2_000 }, 2_000],
      [{ timeoutMs: 60_000 }, 5_000],
      [{}, 4_000],
    ] as const) {
      const before = Date.now();
      await client.batch({ text: "x" }, options);
      // It counts from some moment of the call, however long that took.
      expect(at - ms).toBeGreaterThanOrEqual(before);
      expect(at - ms).toBeLessThanOrEqual(Date.now());
    }
  });

  test("work that can't be done in time is not begun", async () => {
    const { calls, handler } = stubborn();
    const call = echoClient({ echo: handler }).echo({ text: "x" }, { timeoutMs: 5 });
    await expect(call).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    expect(calls).toHaveLength(0);
  });

  test("a session ends at its maximum age, and its generator is cleaned up", async () => {
    let cleanedUp = false;
    const client = echoClient({
      async *session(_ctx, call) {
        try {
          yield { text: "open" };
          await new Promise((_resolve, reject) => {
            call.signal.addEventListener("abort", () => reject(call.signal.reason));
          });
        } finally {
          cleanedUp = true;
        }
      },
    });
    const texts: string[] = [];
    const reading = (async () => {
      for await (const { text } of client.session({ text: "x" })) texts.push(text);
    })();
    await expect(reading).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    expect(texts).toEqual(["open"]);
    expect(cleanedUp).toBe(true);
  });

  test("a call inside another one gets what that one has left, and ends with it", async () => {
    const { gate, calls, handler } = stubborn();
    const inner = echoClient({ echo: handler });
    const outer = echoClient({
      async write(_ctx, call) {
        await inner.echo({ text: "x" }, within(call));
        return {};
      },
    });
    await expect(outer.write({ text: "x" }, { timeoutMs: 500 })).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    // By its own 4 s it would have seconds left.
    expect(calls[0]?.deadlineAt).toBeLessThanOrEqual(Date.now() + 1_000);
    expect(calls[0]?.signal.aborted).toBe(true);
    gate.resolve();
  });
});

describe("streams", () => {
  test("a handler is not ahead of its reader", async () => {
    let made = 0;
    const client = echoClient({
      async *expand() {
        for (;;) yield { count: made++ };
      },
    });
    const controller = new AbortController();
    const replies = client.expand({ text: "x" }, { signal: controller.signal })[Symbol.asyncIterator]();
    for (let i = 0; i < 10; i++) await replies.next();
    expect(made).toBeLessThanOrEqual(12);
    controller.abort();
  });

  test("a caller that leaves ends the generator", async () => {
    const ended = Promise.withResolvers<void>();
    const client = echoClient({
      async *expand() {
        try {
          for (;;) yield {};
        } finally {
          ended.resolve();
        }
      },
    });
    const controller = new AbortController();
    const replies = client.expand({ text: "x" }, { signal: controller.signal })[Symbol.asyncIterator]();
    await replies.next();
    controller.abort();
    await expect(all({ [Symbol.asyncIterator]: () => replies })).rejects.toMatchObject({ code: "CANCELLED" });
    await ended.promise;
  });
});

describe("an open service", () => {
  test("has no credential to read", async () => {
    const pipeline = echoPipeline();
    const binding = { ...echoBinding({ echo: async (_ctx, call) => ({ text: call.tenant }) }), open: true };
    const client = createClient(EchoService, createLocalTransport({ bindings: [binding], pipeline }));
    await expect(client.forgotten({ text: "x" })).resolves.toMatchObject({ text: "x" });
    await expect(client.echo({ text: "x" })).rejects.toMatchObject({ code: "INTERNAL" });
  });
});

describe("a method of the scope public", () => {
  test("is for everyone, whatever they show, and its rules hold", async () => {
    for (const key of ["", "nonsense", echoKeys.powerless]) {
      const client = echoClient({}, { key });
      await expect(client.anyone({ text: "x" })).resolves.toMatchObject({ text: "x" });
      await expect(client.anyone({ text: "" })).rejects.toMatchObject({ reason: "INVALID_FIELD" });
    }
  });

  test("has slots of its own, a fifth of everybody's beside: neither kind of call takes the other's", async () => {
    const [open, guarded] = [stubborn(), stubborn()];
    const client = echoClient({ anyone: open.handler, echo: guarded.handler }, { maxConcurrent: 10 });
    const running = Array.from({ length: 2 }, () => client.anyone({ text: "x" }));
    await until("both slots of public calls are taken", () => open.calls.length === 2);
    await expect(client.anyone({ text: "y" })).rejects.toMatchObject({ reason: "OVERLOADED" });
    running.push(...Array.from({ length: 10 }, () => client.echo({ text: "x" })));
    await until("all other slots are taken", () => guarded.calls.length === 10);
    await expect(client.echo({ text: "y" })).rejects.toMatchObject({ reason: "OVERLOADED" });
    open.gate.resolve();
    await until("a public slot is free again", () =>
      client.anyone({ text: "x" }).then(
        () => true,
        () => false,
      ),
    );
    guarded.gate.resolve();
    await Promise.all(running);
  });

  test("has no credential to read, and takes a slot like any other", async () => {
    const { gate, calls, handler } = stubborn();
    const client = echoClient({ anyone: handler }, { key: "", maxConcurrent: 1 });
    const running = client.anyone({ text: "x" });
    await until("the handler runs", () => calls.length === 1);
    expect(() => calls[0]?.tenant).toThrow(/no credential/);
    await expect(client.anyone({ text: "y" })).rejects.toMatchObject({ reason: "OVERLOADED" });
    gate.resolve();
    await running;
  });
});

test("a call knows where it came from, by what a trusted proxy tells", async () => {
  const addressOf = async (trustedProxies?: TrustedProxies) => {
    let address: string | undefined;
    const binding = echoBinding({
      echo: async (_ctx, call) => {
        address = call.address;
        return {};
      },
    });
    const pipeline = echoPipeline({ trustedProxies });
    const [route] = pipeline.routes(binding).filter(({ method }) => method.name === "Echo");
    const headers = new Headers({ authorization: `Bearer ${echoKeys.allowed}`, "x-forwarded-for": "203.0.113.9" });
    const receive = () => create(EchoRequestSchema, { text: "x" });
    const peer = "10.0.0.1:80";
    await route?.start({ transport: "grpc", headers, peer, deadlineAt: undefined, receive, send: () => {} }).done;
    return address;
  };
  expect(await addressOf()).toBe("10.0.0.1");
  expect(await addressOf(readTrustedProxies("10.0.0.0/8"))).toBe("203.0.113.9");
});

test("a method that nobody serves here is unknown", async () => {
  const client = createClient(EchoService, createLocalTransport({ bindings: [], pipeline: echoPipeline() }));
  await expect(client.echo({ text: "x" })).rejects.toMatchObject({ code: "UNIMPLEMENTED", reason: "METHOD_UNKNOWN" });
});
