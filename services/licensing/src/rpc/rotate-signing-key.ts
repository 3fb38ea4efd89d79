import { type KeyService, RotateSigningKeyResponseSchema } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { signingKeyStatusAt } from "../domain/signing-key.ts";
import { addSigningKey, publishedKeys } from "../signing-keys.ts";
import { listSigningKeys, lockSigningKeys } from "../store/signing-keys.ts";
import { signingKeyToProto } from "./convert-keys.ts";
import { once } from "./once.ts";

/** Twice as long as caches may keep the published keys. */
const DEFAULT_DELAY_SECONDS = 600;

/** Makes a signing key that signs after a delay. */
export const rotateSigningKey: Handler<typeof KeyService, "rotateSigningKey", Context> = async (ctx, call, request) => {
  // The first key is nobody's successor: without it nothing could sign during the delay.
  await publishedKeys(ctx);
  return once(ctx, call, request, RotateSigningKeyResponseSchema, async (tx) => {
    await lockSigningKeys(tx);
    const now = ctx.now();
    const activeFrom = new Date(now.getTime() + (request.delaySeconds ?? DEFAULT_DELAY_SECONDS) * 1_000);
    const key = await addSigningKey(ctx, tx, call.credential.id, activeFrom);
    return { key: signingKeyToProto(key, signingKeyStatusAt(key, await listSigningKeys(tx), now)) };
  });
};
