import { expect, test } from "@jest/globals";
import { settings, toConfig } from "./config.ts";

test("usage is refused while the bus is down, unless the settings say that it is spooled", () => {
  const env = { LICENSING_ADDRESS: "localhost:9090", DATABASE_URL: "postgres://admin:pw@db:5432" };
  const read = (more: Record<string, string>) => toConfig(settings.parse({ ...env, ...more })).spool;
  expect(read({})).toBeUndefined();
  expect(read({ USAGE_SPOOL_MAX_EVENTS: "5" })).toBeUndefined();
  expect(read({ USAGE_WHEN_BUS_DOWN: "spool" })).toEqual({ maxEvents: 1_000_000 });
  expect(read({ USAGE_WHEN_BUS_DOWN: "spool", USAGE_SPOOL_MAX_EVENTS: "5" })).toEqual({ maxEvents: 5 });
  expect(() => read({ USAGE_WHEN_BUS_DOWN: "drop" })).toThrow("is neither refuse nor spool");
});
