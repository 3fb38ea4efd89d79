import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicenseEvent,
  LicensingService,
  type SubscribeLicenseEventsRequestSchema,
  type SubscribeLicenseEventsResponse,
  SubscriptionStart,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { topicOf } from "@licet/platform/events/cloudevent";
import { newId } from "@licet/platform/ids";
import { type Channel, createChannel } from "@licet/platform/rpc/client";
import { until } from "@licet/platform/testing/until";
import { type Clients, type Harness, type ServedHarness, seedTenant, startHarness } from "./harness.ts";

type Request = MessageInitShape<typeof SubscribeLicenseEventsRequestSchema>;

const { EARLIEST } = SubscriptionStart;
let harness: Harness;
let served: ServedHarness;
let brand: Clients;
let channel: Channel;

async function begin(slowAfterMs: number): Promise<void> {
  harness = await startHarness({ heartbeatMs: 50, slowAfterMs, maxPerTenant: 3, maxTotal: 5 });
  served = await harness.serve();
  brand = await seedTenant(harness, "tradsys");
  await seedTenant(harness, "rankmath");
  channel = connect("tradsys", "service");
}

async function end(): Promise<void> {
  for (const open of channels.splice(0)) open.close();
  await served.stop(1_000);
  await harness.stop();
}

const channels: Channel[] = [];
function connect(tenant: string, role: string): Channel {
  const opened = createChannel({ address: served.grpcAddress, credential: `${tenant} ${role}` });
  channels.push(opened);
  return opened;
}

/** A subscription that its test reads message by message. */
class Subscriber {
  readonly #leaving = new AbortController();
  readonly #messages: AsyncIterator<SubscribeLicenseEventsResponse>;
  token = "";

  constructor(request: Request, transport: Transport = channel) {
    const stream = createClient(LicensingService, transport).subscribeLicenseEvents(request, {
      signal: this.#leaving.signal,
    });
    this.#messages = stream[Symbol.asyncIterator]();
  }

  async next(): Promise<SubscribeLicenseEventsResponse> {
    const { value, done } = await this.#messages.next();
    if (done) throw new Error("the stream ended without an error");
    this.token = value.resumeToken;
    return value;
  }

  /** Passes over heartbeats. */
  async nextEvent(): Promise<LicenseEvent> {
    for (;;) {
      const { content } = await this.next();
      if (content.case === "event") return content.value;
    }
  }

  async leave(): Promise<void> {
    this.#leaving.abort();
    await this.#messages.next().catch(() => undefined);
  }
}

/** Subscribes and waits until the subscription stands. */
async function subscribe(request: Request = {}, transport: Transport = channel): Promise<Subscriber> {
  const subscriber = new Subscriber(request, transport);
  expect((await subscriber.next()).content.case).toBe("heartbeat");
  return subscriber;
}

/** Subscribes as soon as subscriptions of before, which their server may not know to be over, leave room. */
async function subscribeInTime(request: Request = {}, transport: Transport = channel): Promise<Subscriber> {
  let subscriber: Subscriber | undefined;
  await until("there is room for a subscription", async () => {
    subscriber = await subscribe(request, transport).catch((error: unknown) => {
      expect(error).toMatchObject({ reason: "TOO_MANY_SUBSCRIPTIONS" });
      return undefined;
    });
    return subscriber !== undefined;
  });
  return subscriber as Subscriber;
}

async function provision(customerId: string, metadata: Record<string, string> = {}): Promise<string> {
  const wanted = { requestId: newId(), customerId, product: "trading", plan: "standard", metadata };
  const { license } = await brand.licenses.provisionLicense(wanted);
  return license?.licenseId as string;
}

async function newCustomer(): Promise<string> {
  const { customer } = await brand.customers.createCustomer({ requestId: newId(), name: "C" });
  return customer?.customerId as string;
}

const suspend = (licenseId: string) => brand.licenses.suspendLicense({ requestId: newId(), licenseId });
const resume = (licenseId: string) => brand.licenses.resumeLicense({ requestId: newId(), licenseId });

/** The tenant's events as the relay published them to the topic of license events. */
const publishedIds = (): string[] =>
  harness.published
    .filter(({ topic, key }) => topic === topicOf(LicenseChangedSchema).name && key.startsWith("tradsys/"))
    .map(({ headers }) => headers.ce_id ?? "");

describe("SubscribeLicenseEvents", () => {
  // Nobody is meant to be slow, also where a machine stands still for some seconds.
  beforeAll(() => begin(60_000));
  afterAll(end);

  test("brings each event once and in order through any number of ends, while many write and some fail", async () => {
    const customers = await Promise.all([newCustomer(), newCustomer(), newCustomer()]);
    const licenses = await Promise.all([...customers, ...customers].map((customerId) => provision(customerId)));
    let writing = true;
    const writers = licenses.map(async (licenseId) => {
      for (let round = 0; round < 8; round++) {
        await suspend(licenseId);
        await expect(suspend(licenseId)).rejects.toMatchObject({ reason: "TRANSITION_NOT_ALLOWED" });
        await resume(licenseId);
      }
    });
    const written = Promise.all(writers).finally(() => {
      writing = false;
    });

    const seen: LicenseEvent[] = [];
    const versions = new Map<string, bigint>();
    let token = "";
    for (let complete = false; !complete; ) {
      const subscriber = await subscribeInTime({ resumeToken: token, start: EARLIEST });
      const leaveAfter = Math.floor(Math.random() * 20);
      for (let received = 0; received < leaveAfter && !complete; received++) {
        const { content } = await subscriber.next();
        token = subscriber.token;
        if (content.case === "event") seen.push(content.value);
        // Without writers, all that is published is all there will be.
        else if (!writing) {
          await harness.licensing.drain();
          complete = seen.length === publishedIds().length;
        }
      }
      await subscriber.leave();
    }
    await written;

    for (const { change } of seen) {
      const { customerId = "", version = 0n, snapshot } = change ?? {};
      expect(version).toBe((versions.get(customerId) ?? 0n) + 1n);
      expect(snapshot?.version).toBe(version);
      versions.set(customerId, version);
    }
    expect(seen.map(({ eventId }) => eventId).sort()).toEqual(publishedIds().sort());
    for (const customerId of customers) expect(versions.get(customerId)).toBe(1n + 2n + 2n * 16n);
  });

  test("has what the topic has: id, type, time, and the change with everything after it", async () => {
    const subscriber = await subscribeInTime();
    const licenseId = await provision("nile");
    const event = await subscriber.nextEvent();
    expect(event).toMatchObject({
      type: "licet.license.provisioned.v1",
      change: {
        tenantId: "tradsys",
        customerId: "nile",
        cause: LicenseChangeCause.PROVISIONED,
        licenseId,
        actor: "key-of-tradsys",
        snapshot: { customerId: "nile" },
      },
    });
    const record = harness.published.find(({ headers }) => headers.ce_id === event.eventId);
    expect(record?.headers.ce_type).toBe(event.type);
    expect(record?.headers.ce_time).toBe(
      new Date(Number(event.time?.seconds) * 1000 + Number(event.time?.nanos) / 1e6).toISOString(),
    );
    await subscriber.leave();
  });

  test("filters by customer and cause, and its heartbeats move on past what is left out", async () => {
    const customerId = await newCustomer();
    const causes = [LicenseChangeCause.SUSPENDED];
    const subscriber = await subscribeInTime({ customerId, causes });
    const before = subscriber.token;
    const other = await provision("nile");
    await suspend(other);
    await harness.licensing.drain();
    const licenseId = await provision(customerId);
    await harness.licensing.drain();
    while (subscriber.token === before) expect((await subscriber.next()).content.case).toBe("heartbeat");
    await suspend(licenseId);
    expect(await subscriber.nextEvent()).toMatchObject({ change: { customerId, cause: LicenseChangeCause.SUSPENDED } });
    const last = subscriber.token;
    await subscriber.leave();
    // A token holds with any filter.
    const wider = await subscribeInTime({ resumeToken: last });
    await resume(licenseId);
    expect(await wider.nextEvent()).toMatchObject({ change: { cause: LicenseChangeCause.RESUMED } });
    await wider.leave();
  });

  test("another tenant sees nothing of it, and can't use its token", async () => {
    const theirs = await subscribeInTime({ start: EARLIEST, customerId: "nile" }, connect("rankmath", "service"));
    const first = await theirs.nextEvent();
    expect(first.change).toMatchObject({ tenantId: "rankmath", cause: LicenseChangeCause.CUSTOMER_CREATED });
    await provision("nile");
    await harness.licensing.drain();
    for (let beats = 0; beats < 3; beats++) expect((await theirs.next()).content.case).toBe("heartbeat");
    const mine = new Subscriber({ resumeToken: theirs.token });
    await expect(mine.next()).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field: "resume_token" })],
    });
    await theirs.leave();
  });

  test("is refused to a tenant, and to all, that have as many as one may", async () => {
    const mine = [await subscribeInTime(), await subscribeInTime(), await subscribeInTime()];
    const refusal = { code: "RESOURCE_EXHAUSTED", reason: "TOO_MANY_SUBSCRIPTIONS" };
    await expect(subscribe()).rejects.toMatchObject({ ...refusal, metadata: { of: "tenant", maximum: "3" } });
    const others = connect("rankmath", "viewer");
    mine.push(await subscribeInTime({}, others), await subscribeInTime({}, others));
    await expect(subscribe({}, others)).rejects.toMatchObject({
      ...refusal,
      metadata: { of: "instance", maximum: "5" },
    });
    await Promise.all(mine.map((subscriber) => subscriber.leave()));
    await (await subscribeInTime({}, others)).leave();
  });

  test("is over when its reader has left, also long before the next heartbeat", async () => {
    // A handler that waits for its heartbeat would make this last 180 s, and fail.
    const calm = await startHarness({ heartbeatMs: 20_000, maxPerTenant: 1 });
    const ports = await calm.serve();
    const transport = createChannel({ address: ports.grpcAddress, credential: "tradsys service" });
    for (let round = 0; round < 10; round++) await (await subscribeInTime({}, transport)).leave();
    transport.close();
    await ports.stop(1_000);
    await calm.stop();
  }, 120_000);

  test("ends with the key of its caller, and brings no event after that", async () => {
    const subscriber = await subscribeInTime({}, connect("tradsys", "viewer"));
    harness.revoked.add("tradsys viewer");
    await provision("nile");
    const reading = (async () => {
      for (;;) expect((await subscriber.next()).content.case).toBe("heartbeat");
    })();
    await expect(reading).rejects.toMatchObject({ code: "UNAUTHENTICATED", reason: "CREDENTIAL_INVALID" });
    // So that it is not the first that the next test's subscriber sees.
    await harness.licensing.drain();
  });

  test.each([
    ["Connect JSON", () => createConnectTransport({ ...webOptions(), useBinaryFormat: false })],
    ["gRPC-Web", () => createGrpcWebTransport(webOptions())],
  ])("over %s, on HTTP/1.1", async (_name, transport) => {
    const subscriber = await subscribeInTime({}, transport());
    const licenseId = await provision("nile");
    expect((await subscriber.nextEvent()).change?.licenseId).toBe(licenseId);
    await subscriber.leave();
  });

  const webOptions = () => ({
    baseUrl: served.webUrl,
    fetch: ((input, init) => {
      const headers = new Headers(init?.headers);
      headers.set("authorization", "test tradsys service");
      return fetch(input, { ...init, headers });
    }) as typeof fetch,
  });

  test("of an instance that ends is ended at once, and goes on elsewhere", async () => {
    const subscriber = await subscribeInTime();
    const reading = (async () => {
      for (;;) await subscriber.next();
    })();
    const ended = expect(reading).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "SHUTTING_DOWN" });
    const [stopped] = await Promise.all([served.stop(20_000).then(() => "stopped"), ended]);
    expect(stopped).toBe("stopped");
    const licenseId = await provision("nile");
    served = await harness.serve();
    const again = await subscribeInTime({ resumeToken: subscriber.token }, connect("tradsys", "service"));
    expect((await again.nextEvent()).change?.licenseId).toBe(licenseId);
    await again.leave();
  });
});

describe("SubscribeLicenseEvents with little patience", () => {
  beforeAll(() => begin(3_000));
  afterAll(end);

  test("cuts off a reader that takes nothing, which misses nothing when it goes on", async () => {
    const customerId = await newCustomer();
    const note = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`note-${index}`, "x".repeat(512)]));
    const licenses = [];
    for (let count = 0; count < 4; count++) licenses.push(await provision(customerId, note));
    const [licenseId = ""] = licenses;
    // 100 KiB each: far more than a client's buffers and the connection hold.
    for (let round = 0; round < 20; round++) await suspend(licenseId).then(() => resume(licenseId));
    await harness.licensing.drain();

    const request = { start: EARLIEST, customerId };
    const slow = [await subscribeInTime(request), await subscribeInTime(request), await subscribeInTime(request)];
    await expect(subscribe()).rejects.toMatchObject({ reason: "TOO_MANY_SUBSCRIPTIONS" });
    // All of them were cut off when as many others are let in.
    const others = [await subscribeInTime(), await subscribeInTime(), await subscribeInTime()];
    await Promise.all(others.map((subscriber) => subscriber.leave()));
    for (const subscriber of slow) {
      const versions: bigint[] = [];
      const reading = (async () => {
        for (;;) versions.push((await subscriber.nextEvent()).change?.version ?? 0n);
      })();
      await expect(reading).rejects.toMatchObject({
        code: "RESOURCE_EXHAUSTED",
        reason: "SUBSCRIBER_TOO_SLOW",
        metadata: { limit_ms: "3000" },
      });
      expect(versions.length).toBeLessThan(45);
      const again = await subscribeInTime({ ...request, resumeToken: subscriber.token });
      while (versions.length < 45) versions.push((await again.nextEvent()).change?.version ?? 0n);
      expect(versions).toEqual(Array.from({ length: 45 }, (_, index) => BigInt(index + 1)));
      await again.leave();
    }
  });
});
