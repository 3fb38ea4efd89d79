import { createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, test } from "@jest/globals";
import { context, propagation, ROOT_CONTEXT, TraceFlags, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { platformError, ServiceError } from "../errors.ts";
import { type EchoServer, type EchoServerOptions, echoKeys, startEchoServer } from "../testing/echo-server.ts";
import { EchoService } from "../testing/echo-service.ts";
import { until } from "../testing/until.ts";
import { type Channel, createChannel } from "./client.ts";

const cleanUps: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function start(options: EchoServerOptions = {}): Promise<EchoServer> {
  const server = await startEchoServer(options);
  cleanUps.push(() => server.stop());
  return server;
}

function channelTo(address: string, credential = echoKeys.allowed): Channel {
  const channel = createChannel({ address, credential });
  cleanUps.push(() => channel.close());
  return channel;
}

const echo = (channel: Channel) => createClient(EchoService, channel);

describe("retries", () => {
  const failingOnce = () => {
    let calls = 0;
    return {
      count: () => calls,
      handler: async () => {
        if (++calls === 1) throw platformError("DEPENDENCY_UNAVAILABLE", "not yet");
        return { text: "done" };
      },
    };
  };

  test("repeat what is safe to repeat", async () => {
    const { handler, count } = failingOnce();
    const client = echo(channelTo((await start({ handlers: { echo: handler } })).grpcAddress));
    await expect(client.echo({ text: "x" })).resolves.toMatchObject({ text: "done" });
    expect(count()).toBe(2);
  });

  test("leave alone what is not", async () => {
    const { handler, count } = failingOnce();
    const client = echo(channelTo((await start({ handlers: { write: handler } })).grpcAddress));
    await expect(client.write({ text: "x" })).rejects.toMatchObject({ reason: "DEPENDENCY_UNAVAILABLE" });
    expect(count()).toBe(1);
  });
});

describe("several addresses", () => {
  test("share the calls, and the loss of one fails none", async () => {
    const served = [0, 0];
    const servers = await Promise.all(
      [0, 1].map((index) =>
        start({
          handlers: {
            async echo() {
              served[index] = (served[index] ?? 0) + 1;
              return {};
            },
          },
        }),
      ),
    );
    const address = `ipv4:${servers.map(({ grpcAddress }) => grpcAddress).join(",")}`;
    const client = echo(channelTo(address));
    await until("both serve", async () => {
      await client.echo({ text: "x" });
      return served.every((count) => count > 0);
    });
    const calls = Array.from({ length: 200 }, async (_, i) => {
      if (i === 100) await servers[0]?.grpc.stop(1_000);
      return client.echo({ text: "x" }, { timeoutMs: 20_000 });
    });
    await Promise.all(calls);
    const before = served[1] ?? 0;
    for (let i = 0; i < 10; i++) await client.echo({ text: "x" });
    expect(served[1]).toBe(before + 10);
  });

  test("a server that comes up late is waited for", async () => {
    const first = await start();
    const { grpcAddress } = first;
    await first.stop();
    const client = echo(channelTo(grpcAddress));
    const call = client.echo({ text: "x" }, { timeoutMs: 300 });
    await expect(call).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED", reason: "DEADLINE_EXCEEDED" });
  });
});

describe("what goes with a call", () => {
  test("the channel's credential, unless the call brings its own", async () => {
    const client = echo(channelTo((await start()).grpcAddress));
    await client.echo({ text: "x" });
    const headers = { authorization: `Bearer ${echoKeys.powerless}` };
    await expect(client.echo({ text: "x" }, { headers })).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  });

  test("the current trace", async () => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    cleanUps.push(
      () => context.disable(),
      () => propagation.disable(),
    );
    const seen: (string | null)[] = [];
    const { grpcAddress } = await start({
      handlers: {
        async echo(_ctx, call) {
          seen.push(call.headers.get("traceparent"));
          return {};
        },
      },
    });
    const spanContext = { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: TraceFlags.SAMPLED };
    const client = echo(channelTo(grpcAddress));
    await context.with(trace.setSpanContext(ROOT_CONTEXT, spanContext), () => client.echo({ text: "x" }));
    expect(seen).toEqual([`00-${"1".repeat(32)}-${"2".repeat(16)}-01`]);
  });
});

test("a call whose signal is aborted rejects with the signal's reason when it is one of ours", async () => {
  const client = echo(channelTo((await start()).grpcAddress));
  const reason = platformError("SHUTTING_DOWN", "ending");
  await expect(client.echo({ text: "x" }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  const other = client.echo({ text: "x" }, { signal: AbortSignal.abort(new Error("other")) });
  await expect(other).rejects.toMatchObject({ code: "CANCELLED" });
  await expect(other).rejects.toBeInstanceOf(ServiceError);
});

test("an input that fails ends the stream with its own error", async () => {
  const client = echo(channelTo((await start()).grpcAddress));
  async function* input() {
    yield { text: "x" };
    throw new Error("no more");
  }
  await expect(client.collect(input())).rejects.toThrow("no more");
});
