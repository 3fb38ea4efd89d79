import { type KeyService, RetireSigningKeyResponseSchema } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { type SigningKey, signerAt } from "../domain/signing-key.ts";
import { failure } from "../errors.ts";
import { recordSigningKeyChange } from "../history.ts";
import { listSigningKeys, lockSigningKeys, updateRetiredSigningKey } from "../store/signing-keys.ts";
import { signingKeyToProto } from "./convert-keys.ts";
import { once } from "./once.ts";

/** Withdraws a signing key; withdrawing it again changes nothing. */
export const retireSigningKey: Handler<typeof KeyService, "retireSigningKey", Context> = (ctx, call, request) =>
  once(ctx, call, request, RetireSigningKeyResponseSchema, async (tx) => {
    await lockSigningKeys(tx);
    const keys = await listSigningKeys(tx);
    const found = keys.find(({ kid }) => kid === request.kid);
    if (!found) throw failure("SIGNING_KEY_NOT_FOUND", `There is no signing key ${request.kid}.`);
    if (found.retiredAt) return { key: signingKeyToProto(found, "retired") };
    const now = ctx.now();
    const others = keys.filter(({ kid }) => kid !== found.kid);
    if (!signerAt(others, now)) {
      throw failure(
        "SIGNING_KEY_IN_USE",
        `Nothing else signs now; rotate with delay_seconds 0 before ${found.kid} goes.`,
      );
    }
    const retired: SigningKey = { ...found, retiredAt: now, version: found.version + 1n };
    await updateRetiredSigningKey(tx, retired);
    await recordSigningKeyChange(ctx, tx, call.credential.id, retired, "retired");
    return { key: signingKeyToProto(retired, "retired") };
  });
