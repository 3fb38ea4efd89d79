import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, describe, expect, test } from "@jest/globals";
import { until } from "@licet/platform/testing/until";
import { createLicet, LicetDenied, LicetError, type RemoteOptions } from "./index.ts";
import { startTestServer, type TestServer } from "./testing.ts";

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function serve(): Promise<TestServer> {
  const server = await startTestServer({
    products: { trading: { basic_trading: { reduceOnly: true }, egx_access: {} }, research: { reports: {} } },
    customers: {
      "nile-brokers": [
        { product: "trading", plan: "standard", limits: [{ metric: "users", maximum: 50 }] },
        { id: "r1", product: "research", features: ["reports"] },
      ],
      "lapsed-fund": [{ product: "trading", validUntil: new Date(Date.now() - 86_400_000) }],
    },
  });
  closers.push(() => server.close());
  return server;
}

/** A client that is patient: what a busy machine adds is no subject here. */
function open(server: Pick<TestServer, "address" | "apiKey">, more: Partial<RemoteOptions> = {}) {
  const licet = createLicet({
    mode: "remote",
    address: server.address,
    apiKey: server.apiKey,
    timeoutMs: 30_000,
    ...more,
  });
  closers.push(() => licet.close());
  return licet;
}

/** Closes a client that can't reach its server, and prints what then keeps the process alive. */
const closing = `
  import { createLicet } from ${JSON.stringify(path.join(import.meta.dirname, "index.ts"))};
  const licet = createLicet({ mode: "remote", address: "127.0.0.1:1", apiKey: "k", timeoutMs: 100 });
  await licet.check("a", "b").catch(() => undefined);
  await licet.close();
  await new Promise(setImmediate);
  console.log(process.getActiveResourcesInfo().filter((what) => !what.endsWith("Wrap")).join());
`;

describe("a client in remote mode", () => {
  test("answers as the service does", async () => {
    const licet = open(await serve());
    await licet.ready();
    expect(await licet.check("nile-brokers", "egx_access")).toMatchObject({
      decision: "ALLOW",
      allowed: true,
      reason: "ALLOWED",
      license: { product: "trading", plan: "standard", status: "ACTIVE" },
      source: "MEMORY",
    });
    expect(await licet.check("nile-brokers", "egx_access", { users: 51 })).toMatchObject({
      reason: "LIMIT_EXCEEDED",
      limitViolations: [{ metric: "users", current: "51", limit: 50n, enforcement: "HARD", source: "CONTEXT" }],
      violations: [expect.stringContaining('"users" would be 51')],
    });
    expect((await licet.ask({ customerId: "nile-brokers", feature: "reports", product: "trading" })).allowed).toBe(
      false,
    );
    expect(await licet.require("nile-brokers", "reports")).toMatchObject({ license: { id: "r1" } });
    await expect(licet.require("lapsed-fund", "egx_access")).rejects.toThrow(LicetDenied);
    const { verdict, steps } = await licet.explain("lapsed-fund", "basic_trading");
    expect(verdict.decision).toBe("ALLOW_REDUCE_ONLY");
    expect(steps.map(({ subject }) => subject)).toEqual(
      expect.arrayContaining(["CUSTOMER", "LICENSE", "CLOCK", "POLICY"]),
    );
  });

  test("many features cost one call, and each verdict names its own license", async () => {
    const server = await serve();
    const licet = open(server);
    const verdicts = await licet.checkMany("nile-brokers", ["egx_access", "reports", "teleport"]);
    expect(verdicts.map(({ feature, reason, license }) => [feature, reason, license?.product])).toEqual([
      ["egx_access", "ALLOWED", "trading"],
      ["reports", "ALLOWED", "research"],
      ["teleport", "FEATURE_NOT_IN_PLAN", undefined],
    ]);
    expect(server.calls.get("CheckFeatures")).toBe(1);
    expect(await licet.checkMany("nile-brokers", [])).toEqual([]);
  });

  test("questions about many customers cost one call, and each has its answer or its error in its place", async () => {
    const server = await serve();
    const licet = open(server);
    const answers = await licet.askMany([
      { customerId: "nile-brokers", feature: "egx_access" },
      { customerId: "", feature: "egx_access" },
      { customerId: "lapsed-fund", feature: "egx_access" },
      { customerId: "nile-brokers", feature: "egx_access", context: { users: "many" } },
      { customerId: "nile-brokers", feature: "reports", product: "trading" },
    ]);
    expect(answers).toMatchObject([
      { customerId: "nile-brokers", allowed: true },
      { code: "INVALID_ARGUMENT", message: expect.stringContaining("customerId: has 0 characters") },
      { customerId: "lapsed-fund", reason: "LICENSE_EXPIRED" },
      { code: "INVALID_ARGUMENT", message: expect.stringContaining("users") },
      { feature: "reports", allowed: false },
    ]);
    expect(answers.map((answer) => answer instanceof LicetError)).toEqual([false, true, false, true, false]);
    expect(server.calls.get("BatchValidate")).toBe(1);
    expect(await licet.askMany([])).toEqual([]);
    const tooMany = Array.from({ length: 1_001 }, () => ({ customerId: "nile-brokers", feature: "egx_access" }));
    await expect(licet.askMany(tooMany)).rejects.toThrow("questions: has 1001 questions, must have 1000 at most");
  });

  test("what was wrong with a question is told, by whoever finds it", async () => {
    const licet = open(await serve());
    const refusal = (message: string) => ({ code: "INVALID_ARGUMENT", message: expect.stringContaining(message) });
    await expect(licet.check("", "egx_access")).rejects.toMatchObject(refusal("customerId: has 0 characters"));
    await expect(licet.checkMany("a", ["ok", "NO"])).rejects.toMatchObject(refusal("features[1]"));
    await expect(licet.check("nile-brokers", "egx_access", { users: "many" })).rejects.toMatchObject(refusal("users"));
    expect(licet.state).not.toBe("ERROR");
  });

  test("a server that is away is tried again within the time, then the call fails, and READY comes back with it", async () => {
    const server = await serve();
    const licet = open(server);
    await licet.ready();
    server.refuse("UNAVAILABLE");
    const before = server.calls.get("ValidateFeature") ?? 0;
    await expect(licet.check("nile-brokers", "egx_access")).rejects.toMatchObject({
      name: "LicetError",
      code: "UNAVAILABLE",
      reason: "DEPENDENCY_UNAVAILABLE",
    });
    expect((server.calls.get("ValidateFeature") ?? 0) - before).toBe(4);
    expect(licet.state).toBe("ERROR");
    server.refuse(undefined);
    expect((await licet.check("nile-brokers", "egx_access")).allowed).toBe(true);
    expect(licet.state).toBe("READY");
  });

  test("a key that is refused is FATAL; no address, no answer", async () => {
    const server = await serve();
    const licet = open({ address: server.address, apiKey: "wrong" });
    await expect(licet.check("a", "b")).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
      reason: "CREDENTIAL_INVALID",
    });
    await until("it is FATAL", () => licet.state === "FATAL");
    const gone = open({ address: "127.0.0.1:1", apiKey: "k" }, { timeoutMs: 300 });
    await expect(gone.check("a", "b")).rejects.toMatchObject({ code: expect.stringMatching(/UNAVAILABLE|DEADLINE/) });
    expect(gone.state).toBe("ERROR");
  });

  test("closed while its server is away, it leaves nothing behind that keeps the process", async () => {
    const node = ["-C", "licet-src", "--input-type=module", "-e", closing];
    const { stdout } = await promisify(execFile)(process.execPath, node);
    expect(stdout).toBe("\n");
  });

  test("a call ends with its signal, and all with the client", async () => {
    const licet = open(await serve());
    const aborted = licet.check("a", "b", {}, { signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ code: "CANCELLED" });
    await licet.close();
    await expect(licet.check("a", "b")).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
  });
});
