import { describe, expect, test } from "@jest/globals";
import { readInvocation } from "./config.ts";

describe("readInvocation", () => {
  test("has working defaults", () => {
    expect(readInvocation([], {})).toEqual({
      json: false,
      config: {
        dataDir: ".licet",
        ephemeral: false,
        seed: true,
        host: "127.0.0.1",
        grpcPort: 9090,
        webPort: 8080,
        metricsPort: 9464,
        databaseUrl: undefined,
        otlpEndpoint: undefined,
        logLevel: "warn",
        publicCalls: { perKeyAndDay: 1_440, attemptsPerMinute: 60 },
      },
    });
  });

  test("takes flags, also behind the dashes that pnpm passes on, and the environment", () => {
    const args = [
      "--",
      "--json",
      "--no-seed",
      "--grpc-port",
      "1",
      "--web-port=0",
      "--metrics-port",
      "0",
      "--data-dir",
      "d",
    ];
    const env = {
      DATABASE_URL: "postgres://a:b@c",
      LICET_HOST: "0.0.0.0",
      LICET_LOG_LEVEL: "debug",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://localhost:4318/v1/traces",
      CALLS_PER_KEY_AND_DAY: "5",
      ATTEMPTS_PER_MINUTE: "0",
      TRUSTED_PROXIES: "10.0.0.0/8",
    };
    expect(readInvocation(args, env)).toEqual({
      json: true,
      config: {
        dataDir: "d",
        ephemeral: false,
        seed: false,
        host: "0.0.0.0",
        grpcPort: 1,
        webPort: 0,
        metricsPort: 0,
        databaseUrl: "postgres://a:b@c",
        otlpEndpoint: "http://localhost:4318/v1/traces",
        logLevel: "debug",
        publicCalls: { perKeyAndDay: 5, attemptsPerMinute: 0 },
        trustedProxies: { includes: expect.any(Function) },
      },
    });
  });

  test("an ephemeral run has no folder unless one is named", () => {
    expect(readInvocation(["--ephemeral"], {})?.config.dataDir).toBeUndefined();
    expect(readInvocation(["--ephemeral", "--data-dir", "d"], {})?.config.dataDir).toBe("d");
  });

  test("help asks for nothing else", () => {
    expect(readInvocation(["--help", "--grpc-port", "x"], { LICET_LOG_LEVEL: "loud" })).toBeUndefined();
  });

  test.each([
    [["--grpc-port", "x"], {}, '--grpc-port: "x" is no port; it should be a whole number from 0 to 65535'],
    [["--web-port", "65536"], {}, '--web-port: "65536" is no port'],
    [["--metrics-port", "-1"], {}, "--metrics-port"],
    [["--web-port", "9090"], {}, "two of them are the same"],
    [["--data-dir"], {}, "'--data-dir <value>' argument missing; --help lists the flags"],
    [["--fast"], {}, "Unknown option '--fast'; --help lists the flags"],
    [["now"], {}, "Unexpected argument 'now'"],
    [[], { TRUSTED_PROXIES: "10.0.0.0/8,proxy" }, "TRUSTED_PROXIES: holds something that is no address"],
    [[], { CALLS_PER_KEY_AND_DAY: "-1" }, "CALLS_PER_KEY_AND_DAY: is negative"],
    [[], { DATABASE_URL: "mysql://a:hidden@b" }, "DATABASE_URL: is not a Postgres URL; it should be a URL such as"],
    [[], { LICET_LOG_LEVEL: "loud" }, "LICET_LOG_LEVEL: is no log level; it should be debug, info, warn or error"],
    [[], { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "collector" }, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: is not an HTTP URL"],
    [["--ephemeral"], { DATABASE_URL: "postgres://a:b@c" }, "--ephemeral: cannot remove the data of DATABASE_URL"],
  ])("%j %j is refused", (args, env, message) => {
    expect(() => readInvocation(args, env)).toThrow(message);
    expect(() => readInvocation(args, env)).not.toThrow("hidden");
  });

  test("all problems are told at once", () => {
    const all = () => readInvocation(["--grpc-port", "x", "--web-port", "y"], { LICET_LOG_LEVEL: "loud" });
    for (const part of ["--grpc-port", "--web-port", "LICET_LOG_LEVEL"]) expect(all).toThrow(part);
  });
});
