import { fromBinary } from "@bufbuild/protobuf";
import { LicenseChangeCause, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { isUnknown } from "./caller.ts";
import { query } from "./convergence.ts";
import type { Spell } from "./faults.ts";
import type { Findings } from "./findings.ts";
import { type AskEntry, type ChangeEntry, type EndEntry, type ForeignEntry, readJournal } from "./journal.ts";
import { type FeatureName, features } from "./model.ts";

/** An event of the history as it was read from somewhere. */
export interface HistoryEvent {
  readonly stream: string;
  readonly version: number;
}

/** What {@link checkLicenses} needs. */
export interface LicenseCheck {
  readonly journal: string;
  /** The licensing database as the system role. */
  readonly url: string;
  /** The license events in the order of the log, those of one customer in theirs. */
  readonly published: AsyncIterable<HistoryEvent>;
  readonly spells: readonly Spell[];
  readonly findings: Findings;
}

/** How long revocations took to be seen by a replica, in milliseconds. */
export interface Latency {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** What the license work came to. */
export interface LicenseCounts {
  readonly provisions: number;
  readonly changes: number;
  readonly validations: { readonly answered: number; readonly withToken: number; readonly unanswered: number };
  readonly revocations: Latency & { readonly healthy: Latency };
}

/** A revocation is seen within so many milliseconds where nothing is broken (99 of 100). */
const HEALTHY_MS = 1_000;
/** Fewer samples say nothing about 99 of 100. */
const HEALTHY_SAMPLES = 100;
/** Nothing is broken if no fault worked for so long before, in milliseconds. */
const SETTLED_MS = 10_000;

interface Change extends ChangeEntry {
  end?: EndEntry;
}

interface Notes {
  readonly changes: Change[];
  readonly asks: AskEntry[];
  readonly foreign: ForeignEntry[];
}

/** Whether every acknowledged change happened once and in order, and everybody saw it in time. */
export async function checkLicenses(check: LicenseCheck): Promise<LicenseCounts> {
  const { findings } = check;
  const { changes, asks, foreign } = await readNotes(check);
  const history = await readHistory(check.url);
  checkVersions(history, "the database", findings);
  await checkPublished(check, history);
  checkEffects(changes, history, findings);
  await checkStates(check, changes);
  checkTokens(asks, findings);
  checkMonotonic(asks, findings);
  checkTenants(changes, asks, foreign, findings);
  const revocations = checkRevocations(changes, asks, check);
  const answered = asks.filter(({ decision }) => decision !== undefined);
  return {
    provisions: new Set(acked(changes, "provision").map(({ tenant, request }) => `${tenant}/${request}`)).size,
    changes: history.reduce((sum, { events }) => sum + events.length, 0),
    validations: {
      answered: answered.length,
      withToken: answered.filter(({ atLeast }) => atLeast > 0).length,
      unanswered: asks.length - answered.length,
    },
    revocations,
  };
}

async function readNotes({ journal, findings }: LicenseCheck): Promise<Notes> {
  const notes: Notes = { changes: [], asks: [], foreign: [] };
  const open = new Map<string, Change>();
  for await (const entry of readJournal(journal)) {
    if (entry.op === "ask") notes.asks.push(entry);
    if (entry.op === "foreign") notes.foreign.push(entry);
    if (entry.op === "change") {
      notes.changes.push(entry);
      open.set(entry.call, entry);
    }
    if (entry.op !== "end") continue;
    const change = open.get(entry.call);
    if (change === undefined) findings.add("journal", `${entry.call} ended and never began`);
    else change.end = entry;
    if (entry.outcome === "fail") findings.add("refused", `${change?.kind} ${entry.call}: ${entry.code}`);
  }
  return notes;
}

function acked(changes: readonly Change[], kind?: ChangeEntry["kind"]): (Change & { end: EndEntry })[] {
  return changes.filter(
    (change): change is Change & { end: EndEntry } =>
      change.end?.outcome === "ok" && (kind === undefined || change.kind === kind),
  );
}

interface StoredEvent extends HistoryEvent {
  readonly cause: LicenseChangeCause;
  readonly license: string;
  /** Empty where it is about none. */
  readonly feature: string;
}

/** The events of one customer in the order of their versions, and the version that the customer's row shows. */
interface Stream {
  readonly stream: string;
  readonly version: number;
  readonly events: readonly StoredEvent[];
}

async function readHistory(url: string): Promise<Stream[]> {
  const customers = await query<{ tenant_id: string; customer_id: string; entitlement_version: string }>(
    url,
    "SELECT tenant_id, customer_id, entitlement_version FROM customer ORDER BY 1, 2",
  );
  const streams: Stream[] = [];
  for (const { tenant_id: tenant, customer_id: customer, entitlement_version: version } of customers) {
    const rows = await query<{ version: string; payload: Buffer }>(
      url,
      "SELECT version, payload FROM event WHERE tenant_id = $1 AND stream = $2 ORDER BY version",
      [tenant, `customer/${customer}`],
    );
    const stream = `${tenant}/${customer}`;
    const events = rows.map((row) => {
      const { cause, licenseId, feature } = fromBinary(LicenseChangedSchema, row.payload);
      return { stream, version: Number(row.version), cause, license: licenseId, feature };
    });
    streams.push({ stream, version: Number(version), events });
  }
  return streams;
}

function checkVersions(history: readonly Stream[], where: string, findings: Findings): void {
  for (const { stream, version, events } of history) {
    const gap = events.findIndex((event, index) => event.version !== index + 1);
    if (gap >= 0)
      findings.add("versions", `${stream} in ${where}: version ${events[gap]?.version} stands at ${gap + 1}`);
    if (events.length !== version) {
      findings.add("versions", `${stream} in ${where}: ${events.length} events lead to version ${version}`);
    }
  }
}

/** A reader that drops the versions it knows must see each customer's history whole and in order. */
async function checkPublished({ published, findings }: LicenseCheck, history: readonly Stream[]): Promise<void> {
  const seen = new Map<string, number>();
  for await (const { stream, version } of published) {
    const known = seen.get(stream) ?? 0;
    if (version <= known) continue;
    if (version !== known + 1) findings.add("versions", `${stream} in the log: ${version} follows ${known}`);
    seen.set(stream, version);
  }
  for (const { stream, version } of history) {
    const last = seen.get(stream) ?? 0;
    if (last !== version)
      findings.add("versions", `${stream} in the log: it ends with ${last}, the history with ${version}`);
  }
}

const causes: Readonly<Record<ChangeEntry["kind"], LicenseChangeCause>> = {
  create: LicenseChangeCause.CUSTOMER_CREATED,
  provision: LicenseChangeCause.PROVISIONED,
  suspend: LicenseChangeCause.SUSPENDED,
  resume: LicenseChangeCause.RESUMED,
  revoke: LicenseChangeCause.REVOKED,
  activate: LicenseChangeCause.FEATURE_ACTIVATED,
  deactivate: LicenseChangeCause.FEATURE_DEACTIVATED,
};

/** Each request had one effect, where it was acknowledged; none without a request. */
function checkEffects(changes: readonly Change[], history: readonly Stream[], findings: Findings): void {
  const events = new Map(
    history.flatMap((one) => one.events.map((event) => [`${one.stream}@${event.version}`, event])),
  );
  const replies = new Map<string, string>();
  const owners = new Map<string, string>();
  for (const { kind, tenant, customer, request, feature = "", end } of acked(changes)) {
    if (kind === "create") continue;
    const id = `${kind} ${tenant}/${request}`;
    const reply = `${end.license} in version ${end.version}`;
    if ((replies.get(id) ?? reply) !== reply)
      findings.add("effects", `${id} answered ${replies.get(id)}, then ${reply}`);
    replies.set(id, reply);
    const place = `${tenant}/${customer}@${end.version}`;
    if ((owners.get(place) ?? id) !== id)
      findings.add("effects", `${place} was told to ${owners.get(place)} and ${id}`);
    owners.set(place, id);
    const event = events.get(place);
    const matches = event?.cause === causes[kind] && event.license === end.license && event.feature === feature;
    if (!matches) {
      const found = event && `${LicenseChangeCause[event.cause]} ${event.feature} of ${event.license}`;
      findings.add("effects", `${id} was acknowledged as ${reply}, the history has ${found ?? "nothing"} there`);
    }
  }
  for (const [kind, cause] of Object.entries(causes)) {
    const asked = new Set(changes.flatMap((one) => (one.kind === kind ? [`${one.tenant}/${one.request}`] : [])));
    const happened = [...events.values()].filter((event) => event.cause === cause && isOurs(event)).length;
    if (happened > asked.size)
      findings.add("effects", `${happened} times ${kind} happened, ${asked.size} were asked for`);
  }
}

/** Customers who use were set up before the journals began. */
function isOurs({ stream }: HistoryEvent): boolean {
  return stream.split("/")[1]?.startsWith("customer-") === true;
}

/** What stands in the tables against what was acknowledged last. */
async function checkStates({ url, findings }: LicenseCheck, changes: readonly Change[]): Promise<void> {
  const rows = await query<LicenseRow & { tenant_id: string; request: string | null }>(
    url,
    `SELECT tenant_id, license_id, status, metadata->>'request' AS request,
            ARRAY(SELECT jsonb_array_elements(grants)->>'feature') AS granted
       FROM license`,
  );
  const licenses = new Map(rows.map((row) => [row.license_id, row]));
  const byRequest = Map.groupBy(
    rows.filter(({ request }) => request !== null),
    ({ tenant_id, request }) => `${tenant_id}/${request}`,
  );
  const asked = new Set(changes.flatMap((one) => (one.kind === "provision" ? [`${one.tenant}/${one.request}`] : [])));
  for (const [request, made] of byRequest) {
    if (made.length > 1) findings.add("effects", `provision ${request} made ${made.length} licenses`);
    if (!asked.has(request)) findings.add("effects", `provision ${request} was never asked for`);
  }
  const byLicense = Map.groupBy(
    changes.filter(({ kind }) => kind !== "create"),
    (change) => change.end?.license || change.license,
  );
  for (const [license, own] of byLicense) {
    if (license === "") continue;
    const row = licenses.get(license);
    if (row === undefined) findings.add("effects", `license ${license} was acknowledged and is not there`);
    else checkState(row, own, findings);
  }
}

/** The status behind a change of it. */
const lasting: Readonly<Partial<Record<ChangeEntry["kind"], string>>> = {
  provision: "active",
  suspend: "suspended",
  resume: "active",
  revoke: "revoked",
};

/** A license as its row shows it. */
interface LicenseRow {
  readonly license_id: string;
  readonly status: string;
  readonly granted: readonly string[];
}

/** Whether a license has the status, and each feature the grant, that was acknowledged last. */
function checkState({ license_id: license, status, granted }: LicenseRow, own: Change[], findings: Findings): void {
  for (const [feature, changes] of Map.groupBy(own, ({ feature }) => feature)) {
    // A worker asks for the next change once the one before is acknowledged; the last may be unknown.
    const last = changes.at(-1)?.request;
    const settled = changes.find(({ request, end }) => request === last && end?.outcome === "ok");
    if (settled === undefined) continue;
    const { kind } = settled;
    const isSo = feature === undefined ? status === lasting[kind] : granted.includes(feature) === (kind === "activate");
    if (isSo) continue;
    const found = feature === undefined ? status : `granted ${granted.join(", ") || "nothing"}`;
    findings.add("effects", `license ${license} is ${found} after an acknowledged ${kind} ${feature ?? ""}`);
  }
}

/** With a token the answer knows the change, whatever is broken; facts that are too old may only deny. */
function checkTokens(asks: readonly AskEntry[], findings: Findings): void {
  for (const ask of asks) {
    const { atLeast, expected, decision, reason, version = 0 } = ask;
    if (expected === undefined || decision === undefined) continue;
    if (version < atLeast) findings.add("token", `${told(ask)}: at least version ${atLeast} was asked for`);
    const allowed = decision === "ALLOW" && ask.license === ask.about;
    if (allowed !== (expected === "ALLOW") && !(expected === "ALLOW" && reason === "FACTS_TOO_OLD")) {
      findings.add("token", `${told(ask)}: it had to be ${expected} by ${ask.about}`);
    }
  }
}

/** A replica never falls behind a version of a customer that it has shown. */
function checkMonotonic(asks: readonly AskEntry[], findings: Findings): void {
  const known = asks.filter(({ version }) => version !== undefined);
  const byPlace = Map.groupBy(known, ({ replica, tenant, customer }) => `${replica}/${tenant}/${customer}`);
  for (const own of byPlace.values()) {
    const answers = own.toSorted((a, b) => a.answered - b.answered);
    let passed = 0;
    let highest = 0;
    for (const ask of own.toSorted((a, b) => a.asked - b.asked)) {
      for (let next = answers[passed]; next !== undefined && next.answered < ask.asked; next = answers[++passed]) {
        highest = Math.max(highest, next.version ?? 0);
      }
      if ((ask.version ?? 0) < highest) findings.add("monotonic", `${told(ask)}: it had shown ${highest} before`);
    }
  }
}

function checkTenants(
  changes: readonly Change[],
  asks: readonly AskEntry[],
  foreign: readonly ForeignEntry[],
  findings: Findings,
): void {
  const owners = new Map(acked(changes, "provision").map(({ tenant, end }) => [end.license, tenant]));
  for (const ask of asks) {
    const owner = owners.get(ask.license ?? "");
    if (owner !== undefined && owner !== ask.tenant)
      findings.add("isolation", `${told(ask)}: the license is ${owner}'s`);
  }
  for (const { method, tenant, code } of foreign) {
    // Nobody knows what a call that was cut off would have answered.
    const [word = ""] = code.split(" ");
    if (word === "NOT_FOUND" || isUnknown(word)) continue;
    findings.add("isolation", `${method} of another tenant's license as ${tenant}: ${code}`);
  }
}

/** Allowances after a revocation, and how long it took until the first denial of each replica. */
function checkRevocations(changes: readonly Change[], asks: readonly AskEntry[], check: LicenseCheck) {
  const { spells, findings } = check;
  const revokedAt = new Map<string, number>();
  for (const { license, end } of acked(changes, "revoke")) {
    revokedAt.set(license, Math.min(end.at, revokedAt.get(license) ?? end.at));
  }
  const firstDenials = new Map<string, { at: number; ms: number }>();
  for (const ask of asks) {
    const at = revokedAt.get(ask.about);
    if (at === undefined || ask.decision === undefined || ask.asked < at) continue;
    const allowed = ask.decision === "ALLOW" && ask.license === ask.about;
    const { boundMs } = features[ask.feature as FeatureName];
    if (allowed && ask.asked > at + boundMs) {
      findings.add("revocation", `${told(ask)}: ${ask.asked - at} ms after the acknowledgement`);
    }
    const key = `${ask.about}@${ask.replica}/${ask.feature}`;
    if (!allowed && ask.atLeast === 0 && !firstDenials.has(key)) firstDenials.set(key, { at, ms: ask.answered - at });
  }
  const all = [...firstDenials.values()];
  const healthy = all.filter(
    ({ at, ms }) => !spells.some(({ from, back }) => from < at + ms && back + SETTLED_MS > at),
  );
  const latency = latencyOf(healthy.map(({ ms }) => ms));
  if (latency.count >= HEALTHY_SAMPLES && latency.p99 >= HEALTHY_MS) {
    findings.add("healthy revocation", `99 of 100 were seen within ${latency.p99} ms while nothing was broken`);
  }
  return { ...latencyOf(all.map(({ ms }) => ms)), healthy: latency };
}

function latencyOf(samples: readonly number[]): Latency {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

function told({ replica, tenant, customer, feature, decision, reason, license, version, asked }: AskEntry): string {
  const when = new Date(asked).toISOString().slice(11, 23);
  return `${when} ${replica} told ${tenant}/${customer} ${decision} ${reason} of ${feature} by ${license} in version ${version}`;
}
