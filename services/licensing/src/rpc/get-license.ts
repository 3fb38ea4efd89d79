import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { getLicense as load } from "../store/licenses.ts";
import type { DB } from "../store/schema.ts";
import { readSeats } from "../store/seats.ts";
import { licenseToProto } from "./convert.ts";

/** Returns a license with its status now and how many of its seats are taken. */
export const getLicense: Handler<typeof LicensingService, "getLicense", Context> = async (ctx, call, request) => {
  const read = async (tx: Transaction<DB>) => {
    const license = await load(tx, call.tenant, request.licenseId);
    return { license, seatsUsed: (await readSeats(tx, call.tenant, license)).used };
  };
  const { license, seatsUsed } = await inTenant(ctx.db, call.tenant, read, { readOnly: true });
  return { license: { ...licenseToProto(license, ctx.now()), seatsUsed } };
};
