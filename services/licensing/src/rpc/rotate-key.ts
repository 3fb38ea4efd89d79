import { type KeyService, RotateKeyResponseSchema } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkChangeable, type LicenseKey } from "../domain/license-key.ts";
import { currentSigner } from "../signing-keys.ts";
import { lockCustomer } from "../store/customers.ts";
import { getLicenseKey, updateLicenseKey } from "../store/license-keys.ts";
import { licenseKeyToProto } from "./convert-keys.ts";
import { loadHeld, newKey, recordKeyChange } from "./new-key.ts";
import { once } from "./once.ts";

/** For how long the old key is still taken where nothing else is said. */
const DEFAULT_OVERLAP_SECONDS = 86_400;

/** Replaces a key by a new one for the same licenses, with the same end. */
export const rotateKey: Handler<typeof KeyService, "rotateKey", Context> = async (ctx, call, request) => {
  const now = ctx.now();
  const signer = await currentSigner(ctx);
  return once(
    ctx,
    call,
    request,
    RotateKeyResponseSchema,
    async (tx) => {
      const { customerId } = await getLicenseKey(tx, call.tenant, request.keyId);
      await lockCustomer(tx, call.tenant, customerId);
      const old = await getLicenseKey(tx, call.tenant, request.keyId);
      checkChangeable(old, now);
      const { expiresAt } = old;
      const ids = old.licenses.map(({ licenseId }) => licenseId);
      const held = await loadHeld(tx, call.tenant, ids);
      const wanted = { customerId, style: old, held, ...(expiresAt && { expiresAt }) };
      const { key, secret } = await newKey(ctx, tx, call, signer, wanted);
      const overlapEnd = new Date(now.getTime() + (request.overlapSeconds ?? DEFAULT_OVERLAP_SECONDS) * 1_000);
      const replaced: LicenseKey = {
        ...old,
        replacedBy: key.keyId,
        expiresAt: expiresAt && expiresAt < overlapEnd ? expiresAt : overlapEnd,
      };
      await updateLicenseKey(tx, call.tenant, replaced);
      const version = await recordKeyChange(ctx, tx, call, replaced, LicenseChangeCause.KEY_ROTATED);
      return {
        key: licenseKeyToProto(key, now),
        secret,
        replaced: licenseKeyToProto(replaced, now),
        consistencyToken: { customerId, version },
      };
    },
    { secret: true },
  );
};
