import { type KeyService, RevokeKeyResponseSchema } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import type { LicenseKey } from "../domain/license-key.ts";
import { lockCustomer } from "../store/customers.ts";
import { getLicenseKey, updateLicenseKey } from "../store/license-keys.ts";
import { licenseKeyToProto } from "./convert-keys.ts";
import { recordKeyChange } from "./new-key.ts";
import { once } from "./once.ts";

/** Ends a key at once; ending it again changes nothing. */
export const revokeKey: Handler<typeof KeyService, "revokeKey", Context> = (ctx, call, request) =>
  once(ctx, call, request, RevokeKeyResponseSchema, async (tx) => {
    const { customerId } = await getLicenseKey(tx, call.tenant, request.keyId);
    await lockCustomer(tx, call.tenant, customerId);
    const found = await getLicenseKey(tx, call.tenant, request.keyId);
    const now = ctx.now();
    if (found.revokedAt) return { key: licenseKeyToProto(found, now) };
    const { reason } = request;
    const revoked: LicenseKey = { ...found, revokedAt: now, revokeReason: reason };
    await updateLicenseKey(tx, call.tenant, revoked);
    const version = await recordKeyChange(ctx, tx, call, revoked, LicenseChangeCause.KEY_REVOKED, reason);
    return { key: licenseKeyToProto(revoked, now), consistencyToken: { customerId, version } };
  });
