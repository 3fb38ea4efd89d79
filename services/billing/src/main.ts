/** Billing as a process of its own; docs/settings.md lists what the environment can tell it. */
import { runService } from "@licet/mesh/process";
import { settings, toConfig } from "./config.ts";
import { createBilling } from "./service.ts";

await runService({
  name: "billing",
  settings,
  licensing: (set) => set.LICENSING_ADDRESS,
  create: (set, { connect }) =>
    createBilling(toConfig(set), {
      licensing: connect(set.LICENSING_ADDRESS),
      metering: connect(set.METERING_ADDRESS),
    }),
});
