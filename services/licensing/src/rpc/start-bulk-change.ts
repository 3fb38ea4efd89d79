import {
  type BulkService,
  type StartBulkChangeRequest,
  StartBulkChangeResponseSchema,
} from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import type { BulkChange, Selection } from "../domain/bulk.ts";
import { selectionFromProto } from "./convert-bulk.ts";
import { once } from "./once.ts";
import { endFromProto } from "./renew-license.ts";
import { startOperation } from "./start-operation.ts";

/** Begins to suspend, resume or renew the selected licenses. */
export const startBulkChange: Handler<typeof BulkService, "startBulkChange", Context> = (ctx, call, request) =>
  once(ctx, call, request, StartBulkChangeResponseSchema, async (tx) => {
    const selection = selectionFromProto(request.selection);
    refuseEverything(selection);
    const { dryRun, reason } = request;
    const change = changeFromProto(request);
    return { operation: await startOperation(ctx, tx, call, { change, selection, dryRun, reason }) };
  });

/** All licenses of a tenant are never meant by leaving something out. */
function refuseEverything(selection: Selection): void {
  const named = Object.values(selection).some((part) => part.length > 0);
  if (!named) throw invalidArgument("selection", "must not be empty; name products, statuses, customers or licenses");
}

function changeFromProto({ change }: StartBulkChangeRequest): BulkChange {
  switch (change.case) {
    case "suspend":
      return { action: "suspend" };
    case "resume":
      return { action: "resume" };
    case "renew":
      return { action: "renew", end: endFromProto(change.value, "renew.") };
    case undefined:
      throw invalidArgument("change", "needs suspend, resume or renew");
  }
}
