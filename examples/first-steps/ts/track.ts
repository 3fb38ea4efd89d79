/** Tracks three signals of a customer of the demo data. docs/guides/tracking.md explains it. */
import { createLicet } from "@licet/sdk";
import { setting } from "./setting.ts";

const licet = createLicet({
  mode: "remote",
  address: setting("LICET_ADDRESS"),
  apiKey: setting("LICET_API_KEY"),
  track: { source: "first-steps" },
});

// Three a day: the ids say so, and whoever repeats an id has to say the same of it.
const day = new Date().toISOString().slice(0, 10);
for (const number of [1, 2, 3]) {
  licet.track({ id: `${day}-${number}`, customerId: "trial-desk", metric: "signals", occurredAt: new Date(day) });
}
await licet.flush();
const { tracked, delivered } = licet.trackCounts();
console.log(`${tracked} tracked, ${delivered} delivered`);

await licet.close();
