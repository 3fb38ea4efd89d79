import { createClient } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { Health, HealthCheckResponse_ServingStatus as Status } from "@licet/contracts/grpc/health/v1/health_pb";
import { type Channel, createChannel } from "./rpc/client.ts";
import { type EchoServer, startEchoServer } from "./testing/echo-server.ts";

let server: EchoServer;
let channel: Channel;
const client = () => createClient(Health, channel);
const service = "testing.v1.EchoService";

beforeEach(async () => {
  server = await startEchoServer({ maxConcurrent: 0, maxStreams: 0 });
  // No credential, and no slot for other calls: health must answer all the same.
  channel = createChannel({ address: server.grpcAddress });
});

afterEach(async () => {
  channel.close();
  await server.stop();
});

describe("Check", () => {
  test("says of each service and of the process what was set, and nothing good before", async () => {
    for (const name of [service, ""]) {
      await expect(client().check({ service: name })).resolves.toMatchObject({ status: Status.NOT_SERVING });
    }
    server.health.setServing(service, true);
    await expect(client().check({ service })).resolves.toMatchObject({ status: Status.SERVING });
    await expect(client().check({})).resolves.toMatchObject({ status: Status.NOT_SERVING });
  });

  test("does not know other services", async () => {
    await expect(client().check({ service: "other.v1.Service" })).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("works over HTTP too", async () => {
    server.health.setServing("", true);
    const response = await fetch(`${server.webUrl}/grpc.health.v1.Health/Check`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    expect(await response.json()).toEqual({ status: "SERVING" });
  });
});

describe("Watch", () => {
  test("tells the state and each change of it", async () => {
    const controller = new AbortController();
    const updates = client().watch({ service }, { signal: controller.signal })[Symbol.asyncIterator]();
    const next = async () => (await updates.next()).value?.status;
    expect(await next()).toBe(Status.NOT_SERVING);
    server.health.setServing(service, true);
    expect(await next()).toBe(Status.SERVING);
    server.health.setServing("", true);
    await client().check({});
    server.health.setServing(service, false);
    expect(await next()).toBe(Status.NOT_SERVING);
    controller.abort();
    await expect(updates.next()).rejects.toMatchObject({ code: "CANCELLED" });
  });

  test("of an unknown service says so and stays open", async () => {
    const controller = new AbortController();
    const updates = client().watch({ service: "other" }, { signal: controller.signal })[Symbol.asyncIterator]();
    await expect(updates.next()).resolves.toMatchObject({ value: { status: Status.SERVICE_UNKNOWN } });
    controller.abort();
  });
});

test("List tells all", async () => {
  server.health.setServing("", true);
  const { statuses } = await client().list({});
  expect(statuses[""]).toMatchObject({ status: Status.SERVING });
  expect(statuses[service]).toMatchObject({ status: Status.NOT_SERVING });
});

test("a name that is none of the services is a mistake of the program", () => {
  expect(() => server.health.setServing("testing.v1.EchoServise", true)).toThrow("EchoServise");
});
