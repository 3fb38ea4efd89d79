import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, describe, expect, test } from "@jest/globals";
import { tableOf } from "@licet/platform/testing/guide";
import { until } from "@licet/platform/testing/until";
import { type Moment, machineClocks } from "./clock.ts";
import { connect } from "./connection.ts";
import { type Environment, processEnvironment } from "./environment.ts";
import { createLicet } from "./index.ts";
import { createLocal } from "./local.ts";
import { startTestServer, type TestServer } from "./testing.ts";

/** The rows of the SDK's table, as the guide tells them. */
const rows = tableOf("failure-modes.md", "## The SDK").map(
  ([mode = "", gone = "", seconds = "", closed = "", graced = "", state = ""]) => ({
    name: `${mode}: ${gone} ${seconds}`,
    mode,
    gone,
    passMs: Number.parseInt(seconds || "0", 10) * 1_000,
    expected: { closed, graced, state },
  }),
);

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function serve(): Promise<TestServer> {
  const server = await startTestServer({
    products: { trading: { closed: { failGraceSeconds: 0 }, graced: { failGraceSeconds: 60 } } },
    customers: { c: [{ product: "trading" }] },
  });
  closers.push(() => server.close());
  return server;
}

function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(os.tmpdir(), "licet-failure-"));
  closers.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** What a client answers in words of the guide. */
async function answers(ask: (feature: string) => unknown): Promise<Record<"closed" | "graced", string>> {
  const one = async (feature: string): Promise<string> => {
    try {
      // Of all verdicts only these two are looked at.
      const { reason, degraded } = (await ask(feature)) as { reason: string; degraded: boolean };
      return degraded && reason === "ALLOWED" ? `${reason}, degraded` : reason;
    } catch (error) {
      return `error ${(error as { code: string }).code}`;
    }
  };
  return { closed: await one("closed"), graced: await one("graced") };
}

async function playLocal(mode: string, gone: string, passMs: number) {
  const server = await serve();
  // Time passes as the row says, however long it takes to play: also connecting, by which facts would count as older.
  const { wallMs, steadyMs } = machineClocks();
  let standing: Moment = { wallMs, steadyMs };
  const machine = () => standing;
  const environment: Environment = { ...processEnvironment, steadyMs: () => machine().steadyMs, machine };
  const cacheDir = mode === "local, cache" ? { cacheDir: temporaryDirectory() } : {};
  const options = { mode: "local", address: server.address, apiKey: server.apiKey, ...cacheDir } as const;
  const start = () => {
    const started = createLocal(options, connect(options), environment);
    closers.push(() => started.close());
    return started;
  };
  let licet = start();
  await licet.ready();
  if (gone.startsWith("the server")) server.refuse("UNAVAILABLE");
  if (gone.startsWith("the API key")) server.refuse("UNAUTHENTICATED");
  if (gone.startsWith("the event log")) server.holdFacts(true);
  if (gone.startsWith("the server")) await until("the watch has ended", () => server.watchers === 0);
  if (gone.startsWith("the API key")) await until("the key is refused", () => licet.state === "FATAL");
  if (gone.includes("restarts")) {
    await licet.close();
    licet = start();
  }
  standing = { wallMs: wallMs + passMs, steadyMs: steadyMs + passMs };
  const told = await answers((feature) => licet.check("c", feature));
  return { told, stateOf: () => licet.state };
}

async function playRemote(gone: string) {
  const server = await serve();
  const licet = createLicet({ mode: "remote", address: server.address, apiKey: server.apiKey, timeoutMs: 30_000 });
  closers.push(() => licet.close());
  await licet.ready();
  server.refuse(gone === "the server" ? "UNAVAILABLE" : "UNAUTHENTICATED");
  return { told: await answers((feature) => licet.check("c", feature)), stateOf: () => licet.state };
}

describe("the table of docs/guides/failure-modes.md", () => {
  test("has the rows that are played here", () => {
    expect(rows).toHaveLength(11);
  });

  test.each(rows)("$name", async ({ mode, gone, passMs, expected }) => {
    const { told, stateOf } = await (mode === "remote" ? playRemote(gone) : playLocal(mode, gone, passMs));
    const { state, ...answered } = expected;
    expect(told).toEqual(answered);
    await until(`it is ${state}`, () => stateOf() === state);
  });
});
