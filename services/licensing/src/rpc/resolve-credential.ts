import type { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { asSystem } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { findApiKey } from "../store/tenants.ts";
import { credentialToProto } from "./convert.ts";

/** Tells another service of the mesh what it needs to check a key. */
export const resolveCredential: Handler<typeof TenantService, "resolveCredential", Context> = async (
  ctx,
  _call,
  request,
) => {
  const found = await asSystem(ctx.db, (tx) => findApiKey(tx, request.keyId));
  if (!found) throw failure("API_KEY_NOT_FOUND", `There is no API key ${request.keyId}.`);
  return { credential: credentialToProto(found) };
};
