import {
  type LicensingService,
  ResumeLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { resuming } from "../decisions.ts";
import { changeLicense } from "../lifecycle.ts";
import { once } from "./once.ts";

/** Puts a suspended license in force again. */
export const resumeLicense: Handler<typeof LicensingService, "resumeLicense", Context> = (ctx, call, request) =>
  once(ctx, call, request, ResumeLicenseResponseSchema, (tx) => changeLicense(ctx, tx, call, request, resuming));
