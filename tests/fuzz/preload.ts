/** Loaded into the victim before its own program: collects garbage when told to, and plants the bugs of FUZZ_PLANT. */
import { plant } from "../planting.ts";
import { planted } from "./planted.ts";

const { FUZZ_PLANT: bugs = "" } = process.env;
for (const name of bugs.split(",").filter((text) => text !== "")) {
  const patches = planted[name];
  if (patches === undefined) throw new Error(`no planted bug is called ${JSON.stringify(name)}`);
  plant(patches);
}

process.on("message", () => {
  globalThis.gc?.();
  process.send?.("collected");
});
// What the test listens by must not keep the victim alive.
process.channel?.unref();
