import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { licenseClaims } from "../domain/claims.ts";
import { sign } from "../signatures.ts";
import { currentSigner } from "../signing-keys.ts";
import { getProduct } from "../store/catalog.ts";
import { getLicense } from "../store/licenses.ts";

/** For how long a signed license is to be taken for true where nothing else is said. */
const DEFAULT_TTL_SECONDS = 86_400;

/** Returns a license and its status now, signed. */
export const getSignedLicense: Handler<typeof LicensingService, "getSignedLicense", Context> = async (
  ctx,
  call,
  request,
) => {
  const signer = await currentSigner(ctx);
  const held = await inTenant(
    ctx.db,
    call.tenant,
    async (tx) => {
      const license = await getLicense(tx, call.tenant, request.licenseId);
      return { license, offlineDays: (await getProduct(tx, call.tenant, license.product)).offlineDays };
    },
    { readOnly: true },
  );
  const context = { issuer: ctx.issuer, tenant: call.tenant, now: ctx.now() };
  const claims = licenseClaims(context, ctx.newId(), held, request.ttlSeconds || DEFAULT_TTL_SECONDS);
  const { jws, payload, signature, hash } = await sign(claims, "licet-license+jwt", signer);
  return {
    signedLicense: {
      payload,
      signature,
      hash,
      issuer: claims.iss,
      issuedAt: timestampFromMs(claims.iat * 1_000),
      expiresAt: timestampFromMs(claims.exp * 1_000),
      kid: signer.kid,
      jws,
    },
  };
};
