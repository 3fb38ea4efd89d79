/** Licensing as a process of its own; docs/settings.md lists what the environment can tell it. */
import { runService } from "@licet/mesh/process";
import { settings, toConfig } from "./config.ts";
import { createLicensing } from "./service.ts";

await runService({
  name: "licensing",
  settings,
  create: (set, { bus, logger }) => createLicensing(toConfig(set), { bus, logger }),
});
