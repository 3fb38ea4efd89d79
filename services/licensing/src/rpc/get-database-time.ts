import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { asSystem } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import { sql } from "kysely";
import type { Context } from "../context.ts";

/** Returns the database's time, by which the relay issues heartbeats. */
export const getDatabaseTime: Handler<typeof LicensingService, "getDatabaseTime", Context> = async (ctx) => {
  const { now } = await asSystem(ctx.db, (tx) =>
    tx.selectNoFrom(sql<Date>`clock_timestamp()`.as("now")).executeTakeFirstOrThrow(),
  );
  return { databaseTime: timestampFromDate(now) };
};
