import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  BulkAction,
  type BulkOperation,
  BulkOperationStatus,
  BulkOutcome,
  type BulkResult,
} from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { RenewFrom } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { newId } from "@licet/platform/ids";
import type { Session, TenantCommand } from "../bulk/command.ts";
import { selectionFlags, selectionOf, wholeNumber } from "../bulk/flags.ts";
import { createPatience } from "../bulk/patience.ts";
import { count, wrap } from "../bulk/progress.ts";
import { resultLines } from "../bulk/results.ts";

const USAGE = `Changes many licenses. It goes on in Licet, whoever watches.

Usage: licet bulk suspend|resume|renew|migrate SELECTION [flags]
       licet bulk watch|results|cancel ID

SELECTION, at least one of these; each narrows the choice:
  --product P --plan P --plan-version N...  --status active...
  --customer ID...  --license ID...

  --dry-run               change nothing; list what would be
  --reason TEXT           why, for the history of each license

renew:
  --until 2027-12-31T00:00:00Z   the new end, or
  --from expiry|now       a term later than this: the plan's, or
  --days N                so many days

migrate (the selection names the product):
  --to-plan P             the plan to go to
  --to-version N          its version; the latest where nothing is said
  --keep-seats            licenses keep their number of seats

LICET_API_KEY is the tenant's API key, LICET_GRPC_URL says where Licet is
(http://127.0.0.1:9090). The exit code is 0 only if no license failed.
`;

const POLL_MS = 500;
/** Results shown at the end of a run; \`licet bulk results\` shows all. */
const MAX_SHOWN = 20;

const options = {
  ...selectionFlags,
  "dry-run": { type: "boolean", default: false },
  reason: { type: "string", default: "" },
  until: { type: "string" },
  from: { type: "string" },
  days: { type: "string" },
  "to-plan": { type: "string" },
  "to-version": { type: "string", default: "0" },
  "keep-seats": { type: "boolean", default: false },
} as const;
type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>["values"];

/** Starts, watches and ends bulk operations. */
export const bulkCommand: TenantCommand = {
  usage: USAGE,
  async run(session, args) {
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options });
    const [action = "", id, ...more] = positionals;
    const takesId = ["watch", "results", "cancel"].includes(action);
    if (more.length > 0 || takesId !== (id !== undefined)) {
      throw new Error("`licet bulk --help` says how to name what to do");
    }
    const { bulk } = session;
    if (id !== undefined) {
      if (action === "results") return showAll(session, id);
      if (action === "watch") return watch(session, id);
      const { operation } = await bulk.cancelBulkOperation({ requestId: newId(), operationId: id });
      if (operation) await session.print(report(operation));
      return operation?.status === BulkOperationStatus.CANCELLED;
    }
    const operation = await begin(session, action, values);
    if (!operation) throw new Error("the server answered without an operation");
    process.stderr.write(`Operation ${operation.operationId}\n`);
    return watch(session, operation.operationId);
  },
};

async function begin({ bulk, licenses }: Session, action: string, values: Values): Promise<BulkOperation | undefined> {
  const common = {
    requestId: newId(),
    selection: selectionOf(values),
    dryRun: values["dry-run"],
    reason: values.reason,
  };
  switch (action) {
    case "suspend":
      return (await bulk.startBulkChange({ ...common, change: { case: "suspend", value: {} } })).operation;
    case "resume":
      return (await bulk.startBulkChange({ ...common, change: { case: "resume", value: {} } })).operation;
    case "renew":
      return (await bulk.startBulkChange({ ...common, change: { case: "renew", value: endOf(values) } })).operation;
    case "migrate": {
      const { "to-plan": plan, "to-version": version, "keep-seats": keepSeats } = values;
      if (plan === undefined) throw new Error("--to-plan is missing: the plan to go to");
      const planVersion = wholeNumber("--to-version", version);
      return (await licenses.migrateLicenses({ ...common, plan, planVersion, keepSeats })).operation;
    }
    default:
      throw new Error(`${JSON.stringify(action)} should be suspend, resume, renew, migrate, watch, results or cancel`);
  }
}

function endOf({ until, from, days }: Values) {
  if ((until === undefined) === (from === undefined)) {
    throw new Error("--until or --from is missing, or both are there: one of them says where the new end is");
  }
  if (until !== undefined) {
    const date = new Date(until);
    if (Number.isNaN(date.getTime())) throw new Error(`--until: ${JSON.stringify(until)} is no time`);
    return { end: { case: "validUntil", value: timestampFromDate(date) } as const };
  }
  if (from !== "expiry" && from !== "now") throw new Error(`--from: ${JSON.stringify(from)} should be expiry or now`);
  const value = from === "now" ? RenewFrom.NOW : RenewFrom.EXPIRY;
  return { end: { case: "termFrom", value } as const, termDays: wholeNumber("--days", days ?? "0") };
}

/** Shows how far an operation is until it has ended, or until Ctrl-C, which does not end it. */
async function watch(session: Session, operationId: string): Promise<boolean> {
  const { bulk, progress, signal } = session;
  const patience = createPatience();
  while (!signal.aborted) {
    try {
      const { operation } = await bulk.getBulkOperation({ operationId });
      patience.headway();
      if (operation && operation.status !== BulkOperationStatus.RUNNING) {
        progress.end();
        await session.print(report(operation));
        await show(session, operationId, MAX_SHOWN);
        return operation.status === BulkOperationStatus.COMPLETED && operation.failed === 0n;
      }
      if (operation) progress.show(lineOf(operation));
    } catch (error) {
      await patience.bear(error);
    }
    await delay(POLL_MS, undefined, { signal }).catch(() => undefined);
  }
  progress.end();
  process.stderr.write(`It goes on: licet bulk watch ${operationId}\n`);
  return false;
}

function lineOf({ lookedAt, total, changed, failed }: BulkOperation): string {
  const share = total === 0n ? 100 : Math.min(100, Number((lookedAt * 100n) / total));
  return `${share} %  ${count(lookedAt)} of ${count(total)} licenses  ${count(changed)} changed  ${count(failed)} failed`;
}

function report(operation: BulkOperation): string {
  const { dryRun, changed, unchanged, skipped, failed, action } = operation;
  const done = {
    [BulkAction.SUSPEND]: "suspended",
    [BulkAction.RESUME]: "resumed",
    [BulkAction.RENEW]: "renewed",
    [BulkAction.MIGRATE]: "migrated",
    [BulkAction.UNSPECIFIED]: "changed",
  }[action];
  const counts = [
    `${count(changed)} ${dryRun ? `would be ${done}` : done}`,
    ...(unchanged > 0n ? [`${count(unchanged)} are so already`] : []),
    ...(skipped > 0n ? [`${count(skipped)} stand otherwise`] : []),
    `${count(failed)} failed`,
  ];
  const ended = operation.status === BulkOperationStatus.CANCELLED ? " It was cancelled." : "";
  return wrap(`Of ${count(operation.lookedAt)} licenses ${counts.join(", ")}.${ended}`, "  ");
}

async function showAll(session: Session, operationId: string): Promise<boolean> {
  return (await show(session, operationId, Number.POSITIVE_INFINITY)) === 0;
}

/** Prints results, up to so many, and returns how many of them are failures. */
async function show({ bulk, print, signal }: Session, operationId: string, most: number): Promise<number> {
  let shown = 0;
  let failures = 0;
  for (let pageToken = ""; !signal.aborted; ) {
    const page: { results: BulkResult[]; nextPageToken: string } = await bulk.listBulkResults({
      operationId,
      pageSize: 100,
      pageToken,
    });
    for (const result of page.results) {
      if (shown === most) {
        await print(`and more: licet bulk results ${operationId}\n`);
        return failures;
      }
      shown++;
      if (result.outcome === BulkOutcome.FAILED) failures++;
      await print(resultLines(result));
    }
    pageToken = page.nextPageToken;
    if (pageToken === "") break;
  }
  return failures;
}
