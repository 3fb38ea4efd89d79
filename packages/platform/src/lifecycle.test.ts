import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { describe, expect, test } from "@jest/globals";
import { createLifecycle } from "./lifecycle.ts";
import { createLogger } from "./logging.ts";

const silent = createLogger({ level: "silent", name: "test" });

describe("shutdown", () => {
  test("closes last in, first out, each step after the one before it", async () => {
    const lifecycle = createLifecycle({ logger: silent });
    const seen: string[] = [];
    for (const name of ["database", "bus", "server"]) {
      lifecycle.defer(name, async () => {
        seen.push(`${name} begins`);
        await new Promise(setImmediate);
        seen.push(`${name} ends`);
      });
    }
    await lifecycle.shutdown();
    expect(seen).toEqual([
      "server begins",
      "server ends",
      "bus begins",
      "bus ends",
      "database begins",
      "database ends",
    ]);
  });

  test("logs a failing step by name and goes on", async () => {
    const lines: string[] = [];
    const destination = { write: (line: string) => void lines.push(line) };
    const logger = createLogger({ level: "info", name: "test", destination });
    const lifecycle = createLifecycle({ logger });
    const closed: string[] = [];
    lifecycle.defer("database", async () => void closed.push("database"));
    lifecycle.defer("rejecting", async () => Promise.reject(new Error("boom")));
    lifecycle.defer("throwing", () => {
      throw new Error("bang");
    });
    await lifecycle.shutdown();
    expect(closed).toEqual(["database"]);
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: "error", step: "throwing", err: { message: "bang" } },
      { level: "error", step: "rejecting", err: { message: "boom" } },
    ]);
  });

  test("runs once, and every caller waits for the end", async () => {
    const lifecycle = createLifecycle({ logger: silent });
    let calls = 0;
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    lifecycle.defer("server", () => {
      calls++;
      return held;
    });
    let ended = 0;
    const both = [lifecycle.shutdown(), lifecycle.shutdown()].map((done) => done.then(() => ended++));
    await new Promise(setImmediate);
    expect(ended).toBe(0);
    release();
    await Promise.all(both);
    await lifecycle.shutdown();
    expect(calls).toBe(1);
  });

  test("takes nothing new once it has begun", async () => {
    const lifecycle = createLifecycle({ logger: silent });
    await lifecycle.shutdown();
    expect(() => lifecycle.defer("late", async () => undefined)).toThrow(
      'the shutdown has begun: "late" can no longer be registered',
    );
  });
});

describe("watchdog", () => {
  /** Runs a program of its own, because the watchdog ends the process it is in. */
  async function run(program: string): Promise<{ code: number; stderr: string }> {
    const source = `
      import { createLifecycle } from ${JSON.stringify(new URL("lifecycle.ts", import.meta.url).href)};
      import { createLogger } from ${JSON.stringify(new URL("logging.ts", import.meta.url).href)};
      const lifecycle = createLifecycle({ logger: createLogger({ level: "info", name: "child" }) });
      ${program}`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, NODE_OPTIONS: "" },
    });
    const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, "exit")]);
    return { code, stderr };
  }

  test("ends a stuck shutdown with exit code 1 and names the step", async () => {
    const { code, stderr } = await run(`
      setInterval(() => {}, 1000);
      lifecycle.defer("consumer", () => new Promise(() => {}));
      lifecycle.watchdog(50);
      await lifecycle.shutdown();`);
    expect(code).toBe(1);
    expect(stderr).toContain('"step":"consumer"');
  });

  test("does not hold back or fail a shutdown that works", async () => {
    const { code, stderr } = await run(`
      lifecycle.defer("consumer", async () => {});
      lifecycle.watchdog(600_000);
      await lifecycle.shutdown();`);
    expect(stderr).toBe("");
    expect(code).toBe(0);
  });
});
