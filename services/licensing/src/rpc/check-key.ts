import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type ActivationService,
  type CheckKeyResponseSchema,
  KeyReason,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { decideKey, type KeyDecision } from "../domain/key-decision.ts";
import type { ProvedKey } from "../known-keys.ts";
import { findProduct } from "../store/catalog.ts";
import { getLicenseKey } from "../store/license-keys.ts";
import { getLicense } from "../store/licenses.ts";
import { foreignLicenseToProto, optionalTimestamp, toEnum } from "./convert.ts";
import { proveKey } from "./presented-key.ts";

/** Tells an installed product what a license key permits. The key is the caller's proof: nothing else says who calls. */
export const checkKey: Handler<typeof ActivationService, "checkKey", Context> = async (ctx, call, request) => {
  const proved = await proveKey(ctx, call, request.key);
  const now = ctx.now();
  if ("reading" in proved) return toProto(decideKey(proved, request.product, now), now);
  return toProto(await decide(ctx, proved, request.product, now), now);
};

function decide(ctx: Context, { tenantId, keyId }: ProvedKey, product: string, now: Date): Promise<KeyDecision> {
  return inTenant(
    ctx.db,
    tenantId,
    async (tx) => {
      const key = await getLicenseKey(tx, tenantId, keyId);
      const held = key.licenses.find((license) => license.product === product);
      const sold = await findProduct(tx, tenantId, product);
      const license = held && (await getLicense(tx, tenantId, held.licenseId));
      // Licenses leave behind what keys of theirs have ended: those say nothing of what another customer holds now.
      const proved = license?.customerId === key.customerId ? license : undefined;
      return decideKey({ key, ...(sold && { product: sold }), ...(proved && { license: proved }) }, product, now);
    },
    { readOnly: true },
  );
}

function toProto(decision: KeyDecision, now: Date): MessageInitShape<typeof CheckKeyResponseSchema> {
  const { reason, message, license, offlineDays, keyExpiresAt } = decision;
  return {
    valid: reason === "permitted",
    reason: toEnum(KeyReason, reason),
    message,
    ...(license && { license: foreignLicenseToProto(license, now) }),
    keyExpiresAt: optionalTimestamp(keyExpiresAt),
    offlineDays: offlineDays ?? 0,
    checkedAt: timestampFromDate(now),
  };
}
