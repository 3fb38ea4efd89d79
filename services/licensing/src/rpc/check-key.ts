import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type ActivationService,
  type CheckKeyResponseSchema,
  KeyReason,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { asSystem, inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { decideKey, type KeyDecision } from "../domain/key-decision.ts";
import { readLicenseKey } from "../domain/license-key.ts";
import { isSigned } from "../signatures.ts";
import { publishedKeys } from "../signing-keys.ts";
import { findProduct } from "../store/catalog.ts";
import { findLicenseKey, getLicenseKey } from "../store/license-keys.ts";
import { getLicense } from "../store/licenses.ts";
import { foreignLicenseToProto, optionalTimestamp, toEnum } from "./convert.ts";

/** Tells an installed product what a license key permits. The key is the caller's proof: nothing else says who calls. */
export const checkKey: Handler<typeof ActivationService, "checkKey", Context> = async (ctx, _call, request) => {
  const now = ctx.now();
  return toProto(await decide(ctx, request.key, request.product, now), now);
};

async function decide(ctx: Context, text: string, product: string, now: Date): Promise<KeyDecision> {
  const reading = readLicenseKey(text);
  if ("problem" in reading) return decideKey({ reading: reading.problem }, product, now);
  if (reading.jws !== undefined && !(await isSigned(reading.jws, "licet-key+jwt", await publishedKeys(ctx)))) {
    return decideKey({ reading: "signature_wrong" }, product, now);
  }
  const hashes = ctx.keyHash.candidates(reading.key);
  const found = await asSystem(ctx.db, (tx) => findLicenseKey(tx, hashes));
  if (!found) return decideKey({ reading: "unknown" }, product, now);
  const { tenantId, keyId } = found;
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
