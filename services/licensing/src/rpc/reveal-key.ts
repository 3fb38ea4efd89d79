import { type KeyService, RevealKeyResponseSchema } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { getLicenseKey, getSealedKey, licenseKeyPlace } from "../store/license-keys.ts";
import { recordKeyChange } from "./new-key.ts";
import { once } from "./once.ts";

/** Shows a key again, and writes down who saw it and why. */
export const revealKey: Handler<typeof KeyService, "revealKey", Context> = (ctx, call, request) =>
  once(
    ctx,
    call,
    request,
    RevealKeyResponseSchema,
    async (tx) => {
      const key = await getLicenseKey(tx, call.tenant, request.keyId);
      const sealed = await getSealedKey(tx, call.tenant, key.keyId);
      await recordKeyChange(ctx, tx, call, key, LicenseChangeCause.KEY_REVEALED, request.reason);
      return { secret: Buffer.from(ctx.vault.open(sealed, licenseKeyPlace(call.tenant, key.keyId))).toString() };
    },
    { secret: true },
  );
