/** Usage metering as a process of its own; docs/settings.md lists what the environment can tell it. */
import { runService } from "@licet/mesh/process";
import { settings, toConfig } from "./config.ts";
import { createUsageMetering } from "./service.ts";

await runService({
  name: "usage-metering",
  settings,
  licensing: (set) => set.LICENSING_ADDRESS,
  create: (set, { bus, logger }) => createUsageMetering(toConfig(set), { bus, logger }),
});
