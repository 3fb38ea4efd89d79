import { describe, expect, test } from "@jest/globals";
import { z } from "zod";
import { ConfigError, parseConfig } from "./config.ts";

const schema = z.object({
  GRPC_PORT: z
    .string()
    .regex(/^\d+$/, "is not a whole number")
    .transform(Number)
    .pipe(z.number().max(65_535, "is above 65535"))
    .describe("a port number, such as 9090"),
  DATABASE_URL: z.url({ protocol: /^postgres(ql)?$/ }).describe("postgres://user:password@host:port"),
  LOG_LEVEL: z.enum(["debug", "info"], "is no log level").default("info"),
  REDIS_URL: z.string().optional(),
});

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    parseConfig(schema, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  throw new Error("the configuration was accepted");
}

describe("parseConfig", () => {
  test("reads what is set, and defaults for the rest", () => {
    const env = { GRPC_PORT: "9090", DATABASE_URL: "postgres://a@b:1", UNRELATED: "x" };
    expect(parseConfig(schema, env)).toEqual({
      GRPC_PORT: 9090,
      DATABASE_URL: "postgres://a@b:1",
      LOG_LEVEL: "info",
    });
  });

  test("takes an empty variable as absent, so that the default applies", () => {
    const env = { GRPC_PORT: "0", DATABASE_URL: "postgres://a@b:1", LOG_LEVEL: "", REDIS_URL: "" };
    expect(parseConfig(schema, env)).toEqual({
      GRPC_PORT: 0,
      DATABASE_URL: "postgres://a@b:1",
      LOG_LEVEL: "info",
    });
  });

  test("reports every problem at once, one a line, with what would be right", () => {
    const problems = problemsOf({ GRPC_PORT: "70000", LOG_LEVEL: "loud" });
    expect(problems).toEqual([
      "GRPC_PORT: is above 65535; it should be a port number, such as 9090",
      "DATABASE_URL: is missing; it should be postgres://user:password@host:port",
      "LOG_LEVEL: is no log level",
    ]);
    expect(new ConfigError(problems).message.split("\n")).toHaveLength(4);
  });

  test("never repeats a value, which may be a secret", () => {
    const env = { GRPC_PORT: "hunter2-a", DATABASE_URL: "mysql://root:hunter2@db", LOG_LEVEL: "hunter2" };
    const problems = problemsOf(env);
    expect(problems).toHaveLength(3);
    expect(problems.join()).not.toContain("hunter2");
  });
});
