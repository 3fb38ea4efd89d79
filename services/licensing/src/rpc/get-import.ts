import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ImportSchema } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import type { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Call } from "@licet/platform/rpc/call";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { type Import, listRowErrors, getImport as load } from "../store/imports.ts";
import { importToProto } from "./convert-bulk.ts";

/** How many errors an import shows by itself. */
const FIRST_ERRORS = 10;

/** Tells how far an import is. */
export const getImport: Handler<typeof BulkService, "getImport", Context> = async (ctx, call, request) => {
  const state = await inTenant(ctx.db, call.tenant, (tx) => load(tx, call.tenant, request.importId), {
    readOnly: true,
  });
  return { import: await withFirstErrors(ctx, call, state) };
};

/** The wire's form of an import with its first errors. */
export async function withFirstErrors(
  ctx: Context,
  call: Call,
  state: Import,
): Promise<MessageInitShape<typeof ImportSchema>> {
  if (state.errorsKept === 0) return importToProto(state, []);
  const { importId } = state;
  const errors = await inTenant(
    ctx.db,
    call.tenant,
    (tx) => listRowErrors(tx, call.tenant, importId, 0n, FIRST_ERRORS),
    { readOnly: true },
  );
  return importToProto(state, errors);
}
