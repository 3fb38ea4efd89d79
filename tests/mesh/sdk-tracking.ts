/** Tracks usage over a spool until it is killed; `sdk-reporting.test.ts` starts and kills it. */
import { createLicet } from "@licet/sdk";

/** What the test says, as JSON in the first argument. */
interface Settings {
  readonly address: string;
  readonly apiKey: string;
  readonly spool: string;
  /** The number of the first event. */
  readonly first: number;
  readonly events: number;
}

const { address, apiKey, spool, first, events } = JSON.parse(process.argv[2] ?? "") as Settings;
const track = { flushIntervalMs: 5, spool: { folder: spool } };
const licet = createLicet({ mode: "remote", address, apiKey, track });
for (let i = first; i < first + events; i++) {
  const id = `spooled-${i}`;
  if (!licet.track({ id, customerId: "nile-brokers", metric: "sdk_spooled" })) throw new Error(`${id} was turned away`);
}
// Whoever kills it decides when it ends.
setInterval(() => undefined, 60_000);
