import type { MessageInitShape } from "@bufbuild/protobuf";
import type { BulkOperationSchema } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { authorOf } from "../history.ts";
import {
  countRunningOperations,
  getOperation,
  insertOperation,
  lockTenantRuns,
  type NewOperation,
} from "../store/bulk.ts";
import { getPlan, getProduct } from "../store/catalog.ts";
import type { DB } from "../store/schema.ts";
import { countSelected } from "../store/selection.ts";
import { operationToProto } from "./convert-bulk.ts";

/** Bulk operations that a tenant can have under way. */
const MAX_RUNNING = 10;

/**
 * Begins a bulk operation, which a worker carries out.
 *
 * @throws ServiceError RESOURCE_EXHAUSTED `TOO_MANY_BULK_RUNS`; NOT_FOUND `PRODUCT_NOT_FOUND`, `PLAN_NOT_FOUND` for those
 *   of the selection
 */
export async function startOperation(
  ctx: Context,
  tx: Transaction<DB>,
  call: Call,
  wanted: Pick<NewOperation, "change" | "selection" | "dryRun" | "reason">,
): Promise<MessageInitShape<typeof BulkOperationSchema>> {
  const { selection } = wanted;
  const { product, plan, planVersions, licenseIds } = selection;
  if (product !== "") await getProduct(tx, call.tenant, product);
  if (plan !== "") {
    for (const version of planVersions.length > 0 ? planVersions : [0]) {
      await getPlan(tx, call.tenant, product, plan, version);
    }
  }
  // One start of the tenant at a time, so that the number holds.
  await lockTenantRuns(tx, call.tenant);
  if ((await countRunningOperations(tx, call.tenant)) >= MAX_RUNNING) {
    const message = `The tenant has ${MAX_RUNNING} bulk operations that run, which is the most; wait for one or cancel it.`;
    throw failure("TOO_MANY_BULK_RUNS", message, { maximum: `${MAX_RUNNING}` });
  }
  const operationId = ctx.newId();
  const total = licenseIds.length > 0 ? BigInt(licenseIds.length) : await countSelected(tx, call.tenant, selection);
  await insertOperation(tx, call.tenant, { ...wanted, operationId, total, ...authorOf(call) });
  return operationToProto(await getOperation(tx, call.tenant, operationId));
}
