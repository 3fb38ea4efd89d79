import { IssueKeyResponseSchema, type KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { invalidArgument, platformError } from "@licet/platform/errors";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { checkPermits, commonStyle } from "../domain/license-key.ts";
import { currentSigner } from "../signing-keys.ts";
import { lockCustomer } from "../store/customers.ts";
import { getLicense } from "../store/licenses.ts";
import { dateFromProto } from "./convert.ts";
import { licenseKeyToProto } from "./convert-keys.ts";
import { loadHeld, newKey } from "./new-key.ts";
import { once } from "./once.ts";

/** Makes a key for licenses of a customer. */
export const issueKey: Handler<typeof KeyService, "issueKey", Context> = async (ctx, call, request) => {
  const now = ctx.now();
  const expiresAt = dateFromProto("expires_at", request.expiresAt);
  if (expiresAt && expiresAt <= now) throw invalidArgument("expires_at", "must lie ahead");
  const [firstId = ""] = request.licenseIds;
  const signer = await currentSigner(ctx);
  return once(
    ctx,
    call,
    request,
    IssueKeyResponseSchema,
    async (tx) => {
      const { customerId } = await getLicense(tx, call.tenant, firstId);
      await lockCustomer(tx, call.tenant, customerId);
      const held = await loadHeld(tx, call.tenant, request.licenseIds);
      const licenses = held.map(({ license }) => license);
      const style = commonStyle(
        licenses,
        held.map(({ product }) => product),
      );
      if (licenses.some((license) => license.customerId !== customerId)) {
        throw platformError("CONFLICT_RETRY", `License ${firstId} has just been transferred; send it again.`);
      }
      for (const license of licenses) checkPermits(license, now);
      const wanted = { customerId, style, held, ...(expiresAt && { expiresAt }) };
      const { key, secret, version } = await newKey(ctx, tx, call, signer, wanted);
      return { key: licenseKeyToProto(key, now), secret, consistencyToken: { customerId, version } };
    },
    { secret: true },
  );
};
