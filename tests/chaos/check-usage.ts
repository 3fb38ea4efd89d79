import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { InvoiceLineKind } from "@licet/contracts/licet/billing/v1/invoice_pb";
import { type Caller, insist } from "./caller.ts";
import { query } from "./convergence.ts";
import type { Findings } from "./findings.ts";
import { readJournal, type TrackEntry } from "./journal.ts";
import {
  BASE_PRICE_CENTS,
  eventId,
  INCLUDED_PER_MONTH,
  metric,
  quarters,
  tenants,
  USING_CUSTOMERS,
  usingCustomer,
} from "./model.ts";

/** What {@link checkUsage} needs. */
export interface UsageCheck {
  readonly journal: string;
  /** The metering database as the system role. */
  readonly url: string;
  readonly callers: ReadonlyMap<string, Caller>;
  /** When the licenses that usage is billed by began, in epoch milliseconds. */
  readonly licensedFrom: number;
  readonly findings: Findings;
  readonly signal: AbortSignal;
}

/** How many events there were. */
export interface UsageCounts {
  /** Events in all calls, repetitions included. */
  readonly sent: number;
  readonly distinct: number;
  readonly acked: number;
  readonly counted: number;
}

const SENT = 1;
const ACKED = 2;
const COUNTED = 4;
/** Rows read from the database at once. */
const PAGE = 20_000;

/** The events of one lane of one tenant, by number. */
interface Lane {
  readonly flags: number[];
  readonly customers: string[];
  readonly at: number[];
}

/** Whether every acknowledged event is counted once, nothing else is, and all sums say the same. */
export async function checkUsage(check: UsageCheck): Promise<UsageCounts> {
  const { lanes, sent } = await readSent(check);
  const totals = await readCounted(check, lanes);
  for (const [name, { flags }] of lanes) {
    for (const [number, flag] of flags.entries()) {
      if ((flag & ACKED) !== 0 && (flag & COUNTED) === 0) {
        check.findings.add("usage", `${name}: event ${number} was acknowledged and is not counted`);
      }
    }
  }
  await checkAggregates(check, totals);
  await checkInvoices(check, totals);
  const tally = (bit: number): number =>
    [...lanes.values()].reduce((sum, { flags }) => sum + flags.filter((flag) => (flag & bit) !== 0).length, 0);
  return { sent, distinct: tally(SENT), acked: tally(ACKED), counted: tally(COUNTED) };
}

async function readSent({ journal, findings }: UsageCheck): Promise<{ lanes: Map<string, Lane>; sent: number }> {
  const lanes = new Map<string, Lane>();
  const open = new Map<string, TrackEntry>();
  let sent = 0;
  const mark = ({ tenant, lane, first, count, customer, at }: TrackEntry, bit: number): void => {
    const key = `${tenant}/${lane}`;
    const own = lanes.get(key) ?? { flags: [], customers: [], at: [] };
    lanes.set(key, own);
    for (let number = first; number < first + count; number++) {
      own.flags[number] = (own.flags[number] ?? 0) | bit;
      own.customers[number] = customer;
      own.at[number] = at;
    }
  };
  for await (const entry of readJournal(journal)) {
    if (entry.op === "track") {
      open.set(entry.call, entry);
      sent += entry.count;
      mark(entry, SENT);
    } else if (entry.op === "end") {
      const call = open.get(entry.call);
      open.delete(entry.call);
      if (call === undefined) findings.add("journal", `${entry.call} ended and never began`);
      else if (entry.outcome === "ok") mark(call, ACKED);
      else if (entry.outcome === "fail") findings.add("refused", `${entry.call}: ${entry.code}`);
    }
  }
  return { lanes, sent };
}

/** What a customer used: by the numbers of the events that are counted. */
interface Total {
  events: bigint;
  quarters: bigint;
}

async function readCounted(check: UsageCheck, lanes: ReadonlyMap<string, Lane>): Promise<Map<string, Total>> {
  const { url, findings } = check;
  const totals = new Map<string, Total>();
  const seen = await query<{ tenant_id: string; source: string }>(
    url,
    "SELECT DISTINCT tenant_id, source FROM usage_event",
  );
  for (const { tenant_id: tenant, source } of seen) {
    const lane = lanes.get(`${tenant}/${source}`);
    for await (const row of readEvents(url, tenant, source)) {
      const number = Number(row.event_id.slice(source.length + 1));
      const what = `${tenant}/${source}: event ${row.event_id}`;
      if (lane === undefined || ((lane.flags[number] ?? 0) & SENT) === 0 || row.event_id !== eventId(source, number)) {
        findings.add("usage", `${what} is counted and was never sent`);
        continue;
      }
      lane.flags[number] = (lane.flags[number] ?? 0) | COUNTED;
      const expected = [lane.customers[number], quarters(tenant, number), lane.at[number]];
      const found = [row.customer_id, Number(row.quantity) * 4, Number(row.at)];
      if (String(expected) !== String(found)) findings.add("usage", `${what} says ${found}, and ${expected} was sent`);
      const key = `${tenant}/${row.customer_id}`;
      const total = totals.get(key) ?? { events: 0n, quarters: 0n };
      total.events += 1n;
      total.quarters += BigInt(quarters(tenant, number));
      totals.set(key, total);
    }
  }
  return totals;
}

interface EventRow {
  event_id: string;
  customer_id: string;
  quantity: string;
  at: string;
}

async function* readEvents(url: string, tenant: string, source: string): AsyncGenerator<EventRow> {
  for (let last = ""; ; ) {
    const rows = await query<EventRow>(
      url,
      `SELECT event_id, customer_id, quantity, round(extract(epoch FROM occurred_at) * 1000) AS at FROM usage_event
        WHERE tenant_id = $1 AND source = $2 AND event_id > $3 ORDER BY event_id LIMIT ${PAGE}`,
      [tenant, source, last],
    );
    yield* rows;
    last = rows.at(-1)?.event_id ?? "";
    if (rows.length < PAGE) return;
  }
}

/** The hourly sums against a recount, in the database and through the service. */
async function checkAggregates(
  { url, callers, findings, signal }: UsageCheck,
  totals: Map<string, Total>,
): Promise<void> {
  const wrong = await query<{ tenant_id: string; customer_id: string; hour: Date; sums: string; recount: string }>(
    url,
    `SELECT tenant_id, customer_id, hour, s.events || ' events, ' || s.quantity AS sums,
            r.events || ' events, ' || r.quantity AS recount
       FROM (SELECT tenant_id, customer_id, metric, hour, feature, license_id, quantity, events FROM usage_hourly) AS s
       FULL JOIN (SELECT tenant_id, customer_id, metric, date_trunc('hour', occurred_at, 'UTC') AS hour, feature, license_id,
                         sum(quantity) AS quantity, count(*) AS events FROM usage_event GROUP BY 1, 2, 3, 4, 5, 6) AS r
      USING (tenant_id, customer_id, metric, hour, feature, license_id)
      WHERE s.events IS DISTINCT FROM r.events OR s.quantity IS DISTINCT FROM r.quantity`,
  );
  for (const { tenant_id, customer_id, hour, sums, recount } of wrong) {
    const place = `${tenant_id}/${customer_id} at ${hour.toISOString()}`;
    findings.add("aggregates", `${place}: the sums are ${sums}, the events ${recount}`);
  }
  const quarantined = await query<{ count: string }>(url, "SELECT count(*) FROM usage_quarantine");
  if (quarantined[0]?.count !== "0") {
    findings.add("aggregates", `${quarantined[0]?.count} events are in quarantine; none contradicts another`);
  }
  for (const [tenant, { usage }] of callers) {
    for (let number = 0; number < USING_CUSTOMERS; number++) {
      const customerId = usingCustomer(number);
      // Of an instance whose clock a fault has set back, the present hour may be the one before.
      const endTime = timestampFromMs(Date.now() + 3_600_000);
      const { totals: told } = await insist(() => usage.getUsageStats({ customerId, endTime }), signal);
      const expected = totals.get(`${tenant}/${customerId}`) ?? { events: 0n, quarters: 0n };
      const found = told.map(
        (total) => `${total.metric} ${total.events} events, ${Number(total.quantity) * 4} quarters`,
      );
      const wanted =
        expected.events === 0n ? [] : [`${metric} ${expected.events} events, ${expected.quarters} quarters`];
      if (String(found) !== String(wanted)) {
        findings.add("aggregates", `${tenant}/${customerId}: GetUsageStats says ${found}, counted are ${wanted}`);
      }
    }
  }
}

/** The invoice of each customer against what the recount comes to. */
async function checkInvoices(check: UsageCheck, totals: Map<string, Total>): Promise<void> {
  const { callers, licensedFrom, findings, signal } = check;
  const period = { periodStart: timestampFromMs(licensedFrom), periodEnd: timestampFromMs(licensedFrom + 86_400_000) };
  for (const tenant of tenants) {
    for (let number = 0; number < USING_CUSTOMERS; number++) {
      const customerId = usingCustomer(number);
      const caller = callers.get(tenant);
      if (caller === undefined) throw new Error(`there is no caller of ${tenant}`);
      const { invoice } = await insist(() => caller.invoices.previewInvoice({ customerId, ...period }), signal);
      const used = totals.get(`${tenant}/${customerId}`)?.quarters ?? 0n;
      const billable = used > 4n * BigInt(INCLUDED_PER_MONTH) ? used - 4n * BigInt(INCLUDED_PER_MONTH) : 0n;
      // A quarter costs 5/16 of a cent; half a cent is rounded up.
      const expected = BigInt(BASE_PRICE_CENTS) + (billable * 5n + 8n) / 16n;
      const line = invoice?.lines.find(({ kind }) => kind === InvoiceLineKind.USAGE);
      const found = `${invoice?.total?.amountMinor} cents for ${Number(line?.quantity ?? 0) * 4} quarters`;
      const wanted = `${expected} cents for ${used} quarters`;
      if (found !== wanted) findings.add("invoice", `${tenant}/${customerId}: it says ${found}, the recount ${wanted}`);
    }
  }
}
