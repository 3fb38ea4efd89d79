import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BulkOutcome, BulkResultSchema } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { Cycle } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { codeOf, isPassingError } from "@licet/platform/database/connection";
import { inTenant } from "@licet/platform/database/database";
import { platformError, ServiceError } from "@licet/platform/errors";
import type { Transaction } from "kysely";
import type { Context } from "./context.ts";
import { changingPlan, renewing, resuming, suspending } from "./decisions.ts";
import { isMigrated, isSelected } from "./domain/bulk.ts";
import type { License } from "./domain/license.ts";
import type { Plan } from "./domain/terms.ts";
import { changeLicense, type Decide } from "./lifecycle.ts";
import { licenseToProto, toEnum } from "./rpc/convert.ts";
import { type BulkOperation, insertResult, type LicenseOutcome, lockOperation, updateOperation } from "./store/bulk.ts";
import { getPlan } from "./store/catalog.ts";
import { findLicenses } from "./store/licenses.ts";
import { inSavepoint, withoutTrace } from "./store/savepoint.ts";
import type { DB } from "./store/schema.ts";
import { listSelected } from "./store/selection.ts";

type Result = Omit<MessageInitShape<typeof BulkResultSchema>, "$typeName">;

/** Licenses that have their turn before other operations have theirs. */
const TURN_LICENSES = 50;
/** Results kept of an operation; the rest is counted. */
const MAX_RESULTS = 100_000;

/** An operation of a tenant. */
export interface OperationKey {
  readonly tenantId: string;
  readonly operationId: string;
}

/**
 * Gives the next licenses of an operation their turn, each in a transaction of its own that also moves the operation on. So
 * whoever does it, however often, and wherever it is cut off: each license has one turn.
 *
 * @returns false when the operation has ended
 */
export async function takeTurn(ctx: Context, key: OperationKey, signal: AbortSignal): Promise<boolean> {
  const { tenantId: tenant, operationId } = key;
  const { operation, ids } = await inTenant(ctx.db, tenant, async (tx) => {
    const state = await lockOperation(tx, tenant, operationId);
    return { operation: state, ids: state.status === "running" ? await nextIds(tx, tenant, state) : [] };
  });
  if (operation.status !== "running") return false;
  for (const licenseId of ids) {
    if (signal.aborted) return true;
    await turnOf(ctx, key, licenseId);
  }
  if (ids.length === TURN_LICENSES) return true;
  await inTenant(ctx.db, tenant, async (tx) => {
    const state = await lockOperation(tx, tenant, operationId);
    // Somebody else may be ahead, and is not through then.
    if (state.status !== "running" || (ids.length > 0 && state.lastId !== ids.at(-1))) return;
    await updateOperation(tx, tenant, { ...state, status: "completed" });
  });
  return false;
}

/** The licenses whose turn is next, in the order of their ids; of those that were named, also such as are not there. */
async function nextIds(tx: Transaction<DB>, tenant: string, { selection, lastId }: BulkOperation): Promise<string[]> {
  if (selection.licenseIds.length > 0) {
    const left = selection.licenseIds.filter((id) => lastId === undefined || id > lastId);
    return left.sort().slice(0, TURN_LICENSES);
  }
  const licenses = await listSelected(tx, tenant, selection, lastId, TURN_LICENSES);
  return licenses.map(({ licenseId }) => licenseId);
}

async function turnOf(ctx: Context, { tenantId: tenant, operationId }: OperationKey, licenseId: string): Promise<void> {
  const turn = (work: (tx: Transaction<DB>, operation: BulkOperation) => Promise<Turn>) =>
    inTenant(ctx.db, tenant, async (tx) => {
      const operation = await lockOperation(tx, tenant, operationId);
      const had = operation.lastId !== undefined && operation.lastId >= licenseId;
      if (had || operation.status !== "running") return;
      await note(tx, tenant, { ...operation, lastId: licenseId }, await work(tx, operation));
    });
  try {
    await turn((tx, operation) => change(ctx, tx, tenant, operation, licenseId));
  } catch (error) {
    if (passes(error)) throw error;
    ctx.logger.error({ err: error, tenant, operationId, licenseId }, "a license of a bulk operation can't be changed");
    const internal = platformError("INTERNAL", "internal error");
    await turn(async () => failed(licenseId, undefined, internal));
  }
}

/** Whether an error will pass, so that the license has its turn later. */
function passes(error: unknown): boolean {
  if (error instanceof ServiceError) return error.code === "UNAVAILABLE" || error.code === "ABORTED";
  return isPassingError(error) || /^(40001|40P01|55P03|57014)$/.test(codeOf(error) ?? "");
}

/** What became of a license, and what of that is worth keeping. */
interface Turn {
  readonly outcome: LicenseOutcome;
  readonly result?: Result;
}

function failed(licenseId: string, before: Result["before"], error: ServiceError): Turn {
  const { reason, message } = error;
  const result = { licenseId, outcome: BulkOutcome.FAILED, reason, message, ...(before && { before }) };
  return { outcome: "failed", result };
}

/** Ends a change that is not to be made. */
class NotChanged extends Error {
  readonly outcome: LicenseOutcome;

  constructor(outcome: LicenseOutcome) {
    super(outcome);
    this.outcome = outcome;
  }
}

/** Changes a license as the RPC for a single one does; in a dry run, undoes that again. */
async function change(
  ctx: Context,
  tx: Transaction<DB>,
  tenant: string,
  operation: BulkOperation,
  licenseId: string,
): Promise<Turn> {
  const { dryRun, selection, actor, ipAddress, userAgent } = operation;
  const reason = operation.reason || `bulk operation ${operation.operationId}`;
  const decide = decisionOf(tx, tenant, operation, reason);
  let seen: { license: License; before: NonNullable<Result["before"]> } | undefined;
  const deciding: Decide = (license, now) => {
    seen = { license, before: licenseToProto(license, now) };
    if (!isSelected(license, selection, now)) throw new NotChanged("skipped");
    if (isMigrated(license, operation.change)) throw new NotChanged("unchanged");
    return decide(license, now);
  };
  const by = { tenant, actor, ipAddress, userAgent };
  const work = () => changeLicense(ctx, tx, by, { licenseId, etag: "", reason }, deciding);
  try {
    const { license: after } = await (dryRun ? withoutTrace(tx, work) : inSavepoint(tx, work));
    if (!dryRun || !seen) return { outcome: "changed" };
    const { license, before } = seen;
    const prices = await pricesOf(tx, tenant, license, after);
    return { outcome: "changed", result: { licenseId, outcome: BulkOutcome.CHANGED, before, after, ...prices } };
  } catch (error) {
    if (error instanceof NotChanged) return { outcome: error.outcome };
    if (!(error instanceof ServiceError) || passes(error)) throw error;
    return failed(licenseId, seen?.before ?? (await licenseAsItIs(ctx, tx, tenant, licenseId)), error);
  }
}

function decisionOf(tx: Transaction<DB>, tenant: string, operation: BulkOperation, reason: string): Decide {
  const { change: wanted } = operation;
  switch (wanted.action) {
    case "suspend":
      return suspending(reason);
    case "resume":
      return resuming;
    case "renew":
      return renewing(tx, tenant, wanted.end);
    case "migrate":
      return (license, now) => {
        const seats = wanted.keepSeats && license.base.seats !== undefined ? { seats: license.base.seats } : {};
        return changingPlan(tx, tenant, { ...wanted, ...seats })(license, now);
      };
  }
}

async function licenseAsItIs(ctx: Context, tx: Transaction<DB>, tenant: string, licenseId: string) {
  const [license] = await findLicenses(tx, tenant, [licenseId]);
  return license && licenseToProto(license, ctx.now());
}

/** What a license's plan versions cost, before and after. */
async function pricesOf(tx: Transaction<DB>, tenant: string, before: License, after: NonNullable<Result["after"]>) {
  const old = before.plan && (await getPlan(tx, tenant, before.product, before.plan.code, before.plan.version));
  const next = after.plan && (await getPlan(tx, tenant, before.product, after.plan, after.planVersion ?? 0));
  const was = priceOf(old);
  const is = priceOf(next || undefined);
  return {
    ...(was && { priceBefore: was.price, cycleBefore: was.cycle }),
    ...(is && { priceAfter: is.price, cycleAfter: is.cycle }),
  };
}

function priceOf(plan: Plan | undefined) {
  const price = plan?.terms.price;
  if (!price) return undefined;
  return {
    price: { currency: price.currency, amountMinor: price.amountMinor },
    cycle: toEnum(Cycle, price.cycle),
  };
}

/** Stores that a license has had its turn. */
async function note(
  tx: Transaction<DB>,
  tenant: string,
  operation: BulkOperation,
  { outcome, result }: Turn,
): Promise<void> {
  const { operationId, counts, resultsKept, lastId = "" } = operation;
  const kept = result !== undefined && resultsKept < MAX_RESULTS;
  if (result && kept) {
    const bytes = toBinary(BulkResultSchema, create(BulkResultSchema, result));
    await insertResult(tx, tenant, operationId, { licenseId: lastId, failed: outcome === "failed", result: bytes });
  }
  const next = { ...counts, [outcome]: counts[outcome] + 1n };
  await updateOperation(tx, tenant, { ...operation, counts: next, resultsKept: resultsKept + (kept ? 1 : 0) });
}
