/** Validation as a process of its own; docs/settings.md lists what the environment can tell it. */
import { runService } from "@licet/mesh/process";
import { createRedisCache } from "@licet/platform/shared-cache/redis";
import { settings, toConfig } from "./config.ts";
import { createValidation } from "./service.ts";

await runService({
  name: "validation",
  settings,
  licensing: (set) => set.LICENSING_ADDRESS,
  create: (set, { bus, logger, connect, defer }) => {
    const dependencies = {
      bus,
      logger,
      licensing: connect(set.LICENSING_ADDRESS),
      ...(set.METERING_ADDRESS !== undefined && { metering: connect(set.METERING_ADDRESS) }),
    };
    if (set.REDIS_URL === undefined) return createValidation(toConfig(set), dependencies);
    const sharedCache = createRedisCache({ url: set.REDIS_URL, prefix: "licet:entitlements:v1:", logger });
    defer("shared cache", () => sharedCache.stop());
    return createValidation(toConfig(set), { ...dependencies, sharedCache });
  },
});
