import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { asSystem } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { databaseTime } from "../store/time.ts";

/** Returns the database's time, by which the relay issues heartbeats. */
export const getDatabaseTime: Handler<typeof LicensingService, "getDatabaseTime", Context> = async (ctx) => {
  return { databaseTime: timestampFromDate(await asSystem(ctx.db, databaseTime)) };
};
