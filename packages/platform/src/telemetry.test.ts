import { afterEach, describe, expect, test } from "@jest/globals";
import { context, propagation, trace } from "@opentelemetry/api";
import { createLogger } from "./logging.ts";
import { currentTraceparent, meter, startTelemetry, type Telemetry } from "./telemetry.ts";

const options = { serviceName: "test", version: "0.0.0", host: "127.0.0.1", metricsPort: 0 };
const callersTrace = "0af7651916cd43dd8448eb211c80319c";

let telemetry: Telemetry | undefined;
afterEach(async () => {
  await telemetry?.stop();
  telemetry = undefined;
});

async function scrape(path = "/metrics", method = "GET"): Promise<Response> {
  return fetch(`http://127.0.0.1:${telemetry?.port}${path}`, { method });
}

/** Runs `fn` in a server span below a caller's trace with the given sampling flag. */
function inSpanOf<T>(flags: "00" | "01" | undefined, fn: () => T): T {
  const header = flags && { traceparent: `00-${callersTrace}-b7ad6b7169203331-${flags}` };
  const parent = propagation.extract(context.active(), header ?? {});
  return trace.getTracer("test").startActiveSpan("call", {}, parent, fn);
}

describe("metrics", () => {
  test("appear under exactly the names they were given", async () => {
    telemetry = await startTelemetry(options);
    const own = meter("test");
    own.createCounter("license_checks_total", { unit: "1" }).add(2, { reason: "ok" });
    own.createHistogram("check_duration_seconds", { unit: "s" }).record(0.001);
    own.createObservableGauge("cache_size").addCallback((result) => result.observe(7));

    const response = await scrape();
    expect(response.status).toBe(200);
    const samples = (await response.text()).split("\n").filter((line) => !line.startsWith("#"));
    expect(samples).toContain('license_checks_total{reason="ok"} 2');
    expect(samples).toContain("cache_size 7");
    expect(samples).toContain("check_duration_seconds_count 1");
    const names = samples.filter((line) => line !== "").map((line) => line.split(/[{ ]/)[0]);
    expect(new Set(names)).toEqual(
      new Set([
        "target_info",
        "license_checks_total",
        "cache_size",
        "check_duration_seconds_count",
        "check_duration_seconds_sum",
        "check_duration_seconds_bucket",
      ]),
    );
  });

  test("are the only thing on their port", async () => {
    telemetry = await startTelemetry(options);
    expect((await scrape("/")).status).toBe(404);
    expect((await scrape("/metrics", "POST")).status).toBe(405);
    expect((await scrape("/metrics?format=text")).status).toBe(200);
  });

  test("a port in use is refused, and a second start in the process too", async () => {
    telemetry = await startTelemetry(options);
    await expect(startTelemetry({ ...options, metricsPort: telemetry.port })).rejects.toMatchObject({
      code: "EADDRINUSE",
    });
    await expect(startTelemetry(options)).rejects.toThrow("already runs in this process");
  });

  test("can start again after stop", async () => {
    telemetry = await startTelemetry(options);
    await telemetry.stop();
    telemetry = await startTelemetry(options);
    meter("test").createCounter("again_total").add(1);
    expect(await (await scrape()).text()).toContain("again_total 1");
  });
});

describe("traces", () => {
  test.each(["00", "01"] as const)("carry a caller's trace on with its flag %s", async (flags) => {
    telemetry = await startTelemetry(options);
    const header = inSpanOf(flags, currentTraceparent);
    expect(header).toMatch(new RegExp(`^00-${callersTrace}-[0-9a-f]{16}-${flags}$`));
    expect(header).not.toContain("b7ad6b7169203331");
  });

  test("that begin here have ids, are not sampled, and survive an await", async () => {
    telemetry = await startTelemetry(options);
    const [before, after] = await inSpanOf(undefined, async () => {
      const first = currentTraceparent();
      await Promise.resolve();
      return [first, currentTraceparent()];
    });
    expect(before).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    expect(after).toBe(before);
    expect(currentTraceparent()).toBeUndefined();
  });

  test("put their ids into log lines", async () => {
    telemetry = await startTelemetry(options);
    const lines: string[] = [];
    const destination = { write: (line: string) => void lines.push(line) };
    const logger = createLogger({ level: "info", name: "test", destination });
    inSpanOf("01", () => logger.info("inside"));
    logger.info("outside");
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      trace_id: callersTrace,
      span_id: expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    expect(JSON.parse(lines[1] ?? "")).not.toHaveProperty("trace_id");
  });
});
