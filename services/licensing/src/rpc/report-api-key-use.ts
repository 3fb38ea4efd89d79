import type { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { asSystem } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { findApiKeys, noteApiKeyUses } from "../store/tenants.ts";
import { credentialToProto } from "./convert.ts";

/** Notes when keys of all tenants were used, and tells which of them have changed without the caller hearing of it. */
export const reportApiKeyUse: Handler<typeof TenantService, "reportApiKeyUse", Context> = async (
  ctx,
  _call,
  { uses },
) => {
  const nowMs = ctx.now().getTime();
  const reported = new Map(uses.map((use) => [use.keyId, use]));
  const known = await asSystem(ctx.db, async (tx) => {
    const keys = await findApiKeys(tx, [...reported.keys()]);
    const noted = keys.map(({ tenantId, keyId }) => ({
      tenantId,
      keyId,
      usedAt: new Date(nowMs - Number(reported.get(keyId)?.usedAgoMs ?? 0n)),
    }));
    if (noted.length > 0) await noteApiKeyUses(tx, noted);
    return keys;
  });
  const unheard = known.filter(({ keyId, version }) => version > (reported.get(keyId)?.version ?? 0n));
  return { changed: unheard.map(credentialToProto) };
};
