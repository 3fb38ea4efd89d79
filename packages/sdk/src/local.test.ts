import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, describe, expect, test } from "@jest/globals";
import { until } from "@licet/platform/testing/until";
import { connect } from "./connection.ts";
import { type Environment, processEnvironment } from "./environment.ts";
import type { LicetError } from "./errors.ts";
import { createLicet, LicetDenied, type LocalLicet, type LocalOptions, type StateChange } from "./index.ts";
import { createLocal } from "./local.ts";
import { startTestServer, type TestCustomer, type TestServer, type TestServerOptions } from "./testing.ts";

const products = {
  trading: {
    basic_trading: { reduceOnly: true },
    egx_access: { failGraceSeconds: 0 },
    crypto_trading: { failGraceSeconds: 60 },
  },
};
const customers: Record<string, TestCustomer> = {
  "nile-brokers": [{ product: "trading", plan: "standard", limits: [{ metric: "users", maximum: 50 }] }],
  "lapsed-fund": [{ product: "trading", validUntil: new Date(Date.now() - 86_400_000) }],
};

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function serve(options: TestServerOptions = { products, customers }): Promise<TestServer> {
  const server = await startTestServer(options);
  closers.push(() => server.close());
  return server;
}

/** A client whose machine's clocks are ahead of the real ones by what `pass` has added: time passes without waiting. */
function open(server: Pick<TestServer, "address" | "apiKey">, more: Partial<LocalOptions> = {}) {
  let aheadMs = 0;
  let sleptMs = 0;
  const warnings: LicetError[] = [];
  const environment: Environment = {
    ...processEnvironment,
    steadyMs: () => performance.now() + aheadMs,
    machine: () => ({ wallMs: Date.now() + aheadMs + sleptMs, steadyMs: performance.now() + aheadMs }),
    warn: (error) => warnings.push(error),
  };
  const options: LocalOptions = { mode: "local", address: server.address, apiKey: server.apiKey, ...more };
  const licet = createLocal(options, connect(options), environment);
  closers.push(() => licet.close());
  const pass = (ms: number): void => {
    aheadMs += ms;
  };
  const sleep = (ms: number): void => {
    sleptMs += ms;
  };
  return { licet, warnings, pass, sleep };
}

function changesOf(licet: LocalLicet): StateChange[] {
  const changes: StateChange[] = [];
  licet.on("state", (change) => changes.push(change));
  return changes;
}

async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(path.join(os.tmpdir(), "licet-sdk-"));
  closers.unshift(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

describe("a client in local mode", () => {
  test("decides as the service does, by what the watch has told", async () => {
    const server = await serve();
    const { licet } = open(server);
    expect(licet.state).toBe("ERROR");
    expect(licet.check("nile-brokers", "egx_access")).toMatchObject({ allowed: false, reason: "NO_FACTS" });
    await licet.ready();
    expect(licet.state).toBe("READY");
    const verdict = licet.check("nile-brokers", "egx_access");
    expect(verdict).toMatchObject({
      decision: "ALLOW",
      allowed: true,
      reason: "ALLOWED",
      license: { product: "trading", plan: "standard", status: "ACTIVE" },
      degraded: false,
      source: "SDK",
    });
    expect(verdict.stalenessMs).toBeLessThan(30_000);
    expect(licet.check("nile-brokers", "egx_access")).toBe(verdict);
    expect(licet.check("lapsed-fund", "basic_trading").decision).toBe("ALLOW_REDUCE_ONLY");
    expect(licet.check("nobody", "egx_access").reason).toBe("NO_LICENSE");
    expect(licet.check("nile-brokers", "egx_access", { users: 50 }).allowed).toBe(true);
    expect(licet.check("nile-brokers", "egx_access", { users: 51 })).toMatchObject({
      reason: "LIMIT_EXCEEDED",
      limitViolations: [{ metric: "users", current: "51", limit: 50n }],
    });
    expect(licet.check("nile-brokers", "egx_access", { product: "other" }).reason).toBe("NO_LICENSE");
    expect(licet.checkMany("nile-brokers", ["egx_access", "teleport"]).map(({ reason }) => reason)).toEqual([
      "ALLOWED",
      "FEATURE_NOT_IN_PLAN",
    ]);
    expect(licet.require("nile-brokers", "egx_access")).toBe(verdict);
    expect(() => licet.require("lapsed-fund", "egx_access")).toThrow(LicetDenied);
    expect(() => licet.require("lapsed-fund", "egx_access")).toThrow(
      expect.objectContaining({ verdict: expect.objectContaining({ reason: "LICENSE_EXPIRED" }) }),
    );
  });

  test.each([
    ["", "egx_access", undefined, "customerId: has 0 characters"],
    ["nile-brokers", "EGX", undefined, 'feature: is "EGX"'],
    ["nile-brokers", "egx_access", { users: Number.NaN }, 'context["users"]: is NaN'],
    ["nile-brokers", "egx_access", { users: "fifty" }, 'context["users"]: must be a decimal number'],
  ])("refuses %j, %j, %j", async (customerId, feature, context, message) => {
    const { licet } = open(await serve());
    await licet.ready();
    const refused = expect.objectContaining({ code: "INVALID_ARGUMENT", message: expect.stringContaining(message) });
    expect(() => licet.check(customerId, feature, context)).toThrow(refused);
  });

  test("sees each change, and nothing of customers that it does not watch", async () => {
    const server = await serve();
    const { licet } = open(server, { customerIds: ["nile-brokers", "later"] });
    await licet.ready();
    expect(licet.check("lapsed-fund", "egx_access")).toMatchObject({
      reason: "NOT_COVERED",
      violations: [expect.stringContaining("customerIds")],
    });
    const before = licet.check("nile-brokers", "egx_access");
    expect(licet.check("later", "egx_access").reason).toBe("NO_LICENSE");
    server.setCustomer("later", [{ product: "trading" }]);
    await until("the new customer is known", () => licet.check("later", "egx_access").allowed);
    server.setCustomer("nile-brokers", [{ product: "trading", status: "REVOKED" }]);
    await until("the revocation is seen", () => !licet.check("nile-brokers", "egx_access").allowed);
    expect(licet.check("nile-brokers", "egx_access").reason).toBe("LICENSE_REVOKED");
    expect(before.allowed).toBe(true);
    server.removeCustomer("later");
    await until("the erasure is seen", () => licet.check("later", "egx_access").reason === "NO_LICENSE");
    server.setProduct("trading", { basic_trading: {} });
    await until("the catalogue is seen", () =>
      licet.check("nile-brokers", "egx_access").violations.some((one) => one.includes("No product has")),
    );
  });

  test("comes back after the server was away, with what has changed meanwhile", async () => {
    const server = await serve();
    const { licet } = open(server);
    await licet.ready();
    server.refuse("UNAVAILABLE");
    server.setCustomer("nile-brokers", [{ product: "trading", status: "SUSPENDED" }]);
    server.removeCustomer("lapsed-fund");
    expect(licet.check("nile-brokers", "egx_access").allowed).toBe(true);
    server.refuse(undefined);
    await until(
      "the suspension is seen",
      () => licet.check("nile-brokers", "egx_access").reason === "LICENSE_SUSPENDED",
    );
    await until("the erasure is seen", () => licet.check("lapsed-fund", "egx_access").reason === "NO_LICENSE");
  });

  test("a watch that begins from the beginning forgets what is no more", async () => {
    const server = await serve();
    const { licet } = open(server);
    await licet.ready();
    server.refuse("UNAVAILABLE");
    server.forgetTokens();
    server.removeCustomer("lapsed-fund");
    server.forgetTokens();
    server.refuse(undefined);
    await until("it is watched again", () => server.watchers === 1);
    await until("the customer is forgotten", () => licet.check("lapsed-fund", "egx_access").reason === "NO_LICENSE");
    expect(licet.check("nile-brokers", "egx_access").allowed).toBe(true);
  });

  test("once facts are too old each feature's fail mode decides, and READY comes back with the server", async () => {
    const server = await serve();
    const { licet, pass } = open(server);
    await licet.ready();
    const changes = changesOf(licet);
    server.refuse("UNAVAILABLE");
    await until("the watch has ended", () => server.watchers === 0);
    expect(licet.check("nile-brokers", "egx_access").allowed).toBe(true);
    pass(31_000);
    expect(licet.check("nile-brokers", "egx_access")).toMatchObject({ reason: "FACTS_TOO_OLD", degraded: true });
    expect(licet.check("nile-brokers", "crypto_trading")).toMatchObject({ reason: "ALLOWED", degraded: true });
    expect(licet.check("nile-brokers", "crypto_trading").stalenessMs).toBeGreaterThanOrEqual(31_000);
    pass(60_000);
    expect(licet.check("nile-brokers", "crypto_trading").reason).toBe("FACTS_TOO_OLD");
    expect(licet.check("nile-brokers", "basic_trading").allowed).toBe(true);
    await until("it is STALE", () => licet.state === "STALE");
    server.refuse(undefined);
    await until("it is READY", () => licet.state === "READY");
    expect(licet.check("nile-brokers", "egx_access")).toMatchObject({ allowed: true, degraded: false });
    await until("both changes were told", () => changes.length === 2);
    expect(changes.map(({ previous, state }) => `${previous} ${state}`)).toEqual(["READY STALE", "STALE READY"]);
    expect(changes[0]?.error?.code).toBe("UNAVAILABLE");
  });

  test("a service that is cut off itself makes facts old, though it speaks each second", async () => {
    const server = await serve();
    server.holdFacts(true);
    const { licet, sleep } = open(server);
    await licet.ready();
    sleep(31_000);
    expect(licet.check("nile-brokers", "egx_access").reason).toBe("FACTS_TOO_OLD");
    server.heartbeat();
    await until("it is STALE", () => licet.state === "STALE");
    server.holdFacts(false);
    await until("it is READY", () => licet.state === "READY");
  });

  test("a key that is refused is FATAL, and facts at hand go on ageing", async () => {
    const server = await serve();
    const unknown = open({ address: server.address, apiKey: "wrong" }).licet;
    await expect(unknown.ready()).rejects.toMatchObject({ code: "UNAUTHENTICATED", reason: "CREDENTIAL_INVALID" });
    expect(unknown.state).toBe("FATAL");
    const { licet, pass } = open(server);
    await licet.ready();
    server.refuse("UNAUTHENTICATED");
    await until("it is FATAL", () => licet.state === "FATAL");
    expect(licet.check("nile-brokers", "egx_access").allowed).toBe(true);
    pass(31_000);
    expect(licet.check("nile-brokers", "egx_access").reason).toBe("FACTS_TOO_OLD");
  });

  test("a closed client answers nothing", async () => {
    const { licet } = open(await serve());
    await licet.ready();
    licet.check("nile-brokers", "egx_access");
    await Promise.all([licet.close(), licet.close()]);
    const closed = { code: "CANCELLED", reason: "CLIENT_CLOSED" };
    expect(() => licet.check("nile-brokers", "egx_access")).toThrow(expect.objectContaining(closed));
    await expect(licet.ready()).rejects.toMatchObject(closed);
  });

  test("refuses options that can't be right", () => {
    const options = { mode: "local", address: "127.0.0.1:1", apiKey: "k" } as const;
    expect(() => createLicet({ ...options, customerIds: [] })).toThrow(/customerIds: names 0 customers/);
    expect(() => createLicet({ ...options, apiKey: "" })).toThrow(/apiKey: is missing/);
  });
});

describe("the cache on disk", () => {
  test("outlives a restart without a server, and the next watch goes on from there", async () => {
    const server = await serve();
    const cacheDir = await temporaryDirectory();
    const first = open(server, { cacheDir }).licet;
    await first.ready();
    await first.close();
    expect((await readdir(cacheDir)).sort()).toEqual(["clock.licet", "entitlements.licet"]);

    server.refuse("UNAVAILABLE");
    const second = open(server, { cacheDir }).licet;
    expect(second.state).toBe("READY");
    await second.ready();
    expect(second.check("nile-brokers", "egx_access").allowed).toBe(true);
    server.setCustomer("nile-brokers", [{ product: "trading", status: "REVOKED" }]);
    server.refuse(undefined);
    await until(
      "the revocation is seen",
      () => second.check("nile-brokers", "egx_access").reason === "LICENSE_REVOKED",
    );
    await second.close();
    server.refuse("UNAVAILABLE");
    expect(open(server, { cacheDir }).licet.check("nile-brokers", "egx_access").reason).toBe("LICENSE_REVOKED");
  });

  test("facts from disk count from their age", async () => {
    const server = await serve();
    const cacheDir = await temporaryDirectory();
    const first = open(server, { cacheDir }).licet;
    await first.ready();
    await first.close();
    server.refuse("UNAVAILABLE");
    const { licet, pass } = open(server, { cacheDir });
    pass(31_000);
    expect(licet.check("nile-brokers", "egx_access").reason).toBe("FACTS_TOO_OLD");
    expect(licet.check("nile-brokers", "crypto_trading").allowed).toBe(true);
  });

  const damages: readonly [string, (bytes: Buffer) => Buffer, string][] = [
    ["is cut off", (bytes) => bytes.subarray(0, 100), "was changed, or is cut off"],
    ["is empty", () => Buffer.alloc(0), "is no file of the Licet SDK"],
    ["is something else", () => Buffer.from("x".repeat(4_000)), "is no file of the Licet SDK"],
    ["has a newer format", (bytes) => bytes.with(9, 3) as Buffer, "has format 3, this SDK reads 2"],
    ["was changed", (bytes) => bytes.with(200, bytes.readUInt8(200) ^ 1) as Buffer, "was changed"],
  ];
  test.each(damages)("a file that %s is refused, and begun anew", async (_name, damage, reason) => {
    const server = await serve();
    const cacheDir = await temporaryDirectory();
    const first = open(server, { cacheDir }).licet;
    await first.ready();
    await first.close();
    const file = path.join(cacheDir, "entitlements.licet");
    await writeFile(file, damage(await readFile(file)));
    server.refuse("UNAVAILABLE");
    const { licet, warnings } = open(server, { cacheDir });
    expect(licet.check("nile-brokers", "egx_access").reason).toBe("NO_FACTS");
    expect(warnings).toEqual([
      expect.objectContaining({ reason: "CACHE_REFUSED", message: expect.stringContaining(reason) }),
    ]);
    server.refuse(undefined);
    await licet.ready();
    await licet.close();
    const again = open(server, { cacheDir });
    expect(again.warnings).toEqual([]);
    expect(again.licet.check("nile-brokers", "egx_access").allowed).toBe(true);
  });

  test("a file of another key, or about other customers, is refused", async () => {
    const server = await serve();
    const cacheDir = await temporaryDirectory();
    const first = open(server, { cacheDir }).licet;
    await first.ready();
    await first.close();
    const foreign = open({ ...server, apiKey: "another" }, { cacheDir });
    expect(foreign.warnings.map(({ message }) => message)).toEqual([
      expect.stringContaining("under another API key"),
      expect.stringContaining("under another API key"),
    ]);
    const narrower = open(server, { cacheDir, customerIds: ["nile-brokers"] });
    expect(narrower.warnings).toEqual([
      expect.objectContaining({ message: expect.stringContaining("was written for other customers") }),
    ]);
  });

  test("one that can't be written is told once, and takes nothing from the answers", async () => {
    const server = await serve();
    const file = path.join(await temporaryDirectory(), "file");
    await writeFile(file, "");
    const { licet, warnings } = open(server, { cacheDir: path.join(file, "below") });
    await licet.ready();
    await until("it is told", () => warnings.some(({ reason }) => reason === "CACHE_NOT_WRITTEN"));
    expect(licet.check("nile-brokers", "egx_access").allowed).toBe(true);
  });
});
