import {
  type LicensingService,
  MigrateLicensesResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getPlan } from "../store/catalog.ts";
import { selectionFromProto } from "./convert-bulk.ts";
import { once } from "./once.ts";
import { startOperation } from "./start-operation.ts";

/** Begins to put many licenses on another plan version of their product. */
export const migrateLicenses: Handler<typeof LicensingService, "migrateLicenses", Context> = (ctx, call, request) =>
  once(ctx, call, request, MigrateLicensesResponseSchema, async (tx) => {
    const selection = selectionFromProto(request.selection);
    const { product } = selection;
    if (product === "") throw invalidArgument("selection.product", "is required: a plan belongs to one product");
    const { dryRun, keepSeats, reason } = request;
    // The version is fixed here: one that is published while the operation runs does not split it.
    const { plan, version } = await getPlan(tx, call.tenant, product, request.plan, request.planVersion);
    const change = { action: "migrate", plan, planVersion: version, keepSeats } as const;
    return { operation: await startOperation(ctx, tx, call, { change, selection, dryRun, reason }) };
  });
