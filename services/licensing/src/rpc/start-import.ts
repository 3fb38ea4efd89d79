import { type BulkService, StartImportResponseSchema } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { lockTenantRuns } from "../store/bulk.ts";
import { countRunningImports, type ImportSettings, insertImport, lockImport } from "../store/imports.ts";
import { importToProto, settingsFromProto } from "./convert-bulk.ts";
import { once } from "./once.ts";
import { requireScope } from "./require-scope.ts";

/** Imports that a tenant can have under way. */
const MAX_RUNNING = 10;

/** Begins to take a file in, or finds the import of this id that has begun. */
export const startImport: Handler<typeof BulkService, "startImport", Context> = (ctx, call, request) => {
  const settings = settingsFromProto(request);
  if (settings.kind === "customers") requireScope(call, "customers:write");
  return once(ctx, call, request, StartImportResponseSchema, async (tx) => {
    // One start of the tenant at a time, so that the number holds.
    await lockTenantRuns(tx, call.tenant);
    if (await insertImport(tx, call.tenant, settings)) {
      if ((await countRunningImports(tx, call.tenant)) > MAX_RUNNING) {
        const message = `The tenant has ${MAX_RUNNING} imports that run, which is the most; finish or cancel one.`;
        throw failure("TOO_MANY_BULK_RUNS", message, { maximum: `${MAX_RUNNING}` });
      }
    }
    const state = await lockImport(tx, call.tenant, settings.importId);
    const other = (Object.keys(settings) as (keyof ImportSettings)[]).filter((name) => state[name] !== settings[name]);
    if (other.length > 0) {
      const message = `An import ${settings.importId} exists with another ${other.join(", ")}; choose another import_id.`;
      throw failure("IMPORT_EXISTS", message);
    }
    return { import: importToProto(state, []) };
  });
};
