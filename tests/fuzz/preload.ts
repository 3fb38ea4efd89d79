/** Loaded into the victim before its own program: collects garbage when told to, and plants the bugs of FUZZ_PLANT. */
import { plant } from "./planted.ts";

const { FUZZ_PLANT: bugs = "" } = process.env;
for (const bug of bugs.split(",").filter((name) => name !== "")) plant(bug);

process.on("message", () => {
  globalThis.gc?.();
  process.send?.("collected");
});
// What the test listens by must not keep the victim alive.
process.channel?.unref();
