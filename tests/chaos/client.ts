/**
 * A process of clients: `licenses` or `usage`, as its settings say. It works until its parent sends `finish` or goes away;
 * then it lets every call that was begun come to its end, for a bounded time, and ends.
 */
import { readFileSync } from "node:fs";
import { type Caller, openCaller, type Place } from "./caller.ts";
import { openJournal } from "./journal.ts";
import { runLicenses } from "./licenses.ts";
import { tenants } from "./model.ts";
import { runUsage, type UsageLoad } from "./usage.ts";

/** What the process is told, as JSON in the file that its argument names. */
export interface ClientSettings {
  readonly work: "licenses" | "usage";
  readonly journal: string;
  readonly place: Place;
  readonly seed: number;
  readonly workers: number;
  readonly load: UsageLoad;
}

/** After `finish`, calls are repeated for so long, in milliseconds. */
const FINISH_WITHIN_MS = 60_000;

const settings = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as ClientSettings;
const finishing = new AbortController();
const over = new AbortController();
process.on("message", () => {
  finishing.abort();
  setTimeout(() => over.abort(), FINISH_WITHIN_MS).unref();
});
process.on("disconnect", () => process.exit(1));
// Ctrl-C is for the parent, which ends us.
process.on("SIGINT", () => undefined);

const callers = new Map<string, Caller>(tenants.map((tenant) => [tenant, openCaller(settings.place, tenant)]));
const journal = await openJournal(settings.journal);
const common = { callers, journal, finishing: finishing.signal, over: over.signal };
if (settings.work === "usage") await runUsage({ ...common, load: settings.load });
else await runLicenses({ ...common, seed: settings.seed, workers: settings.workers });
await journal.close();
process.exit(0);
