import type { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { signingKeyStatusAt } from "../domain/signing-key.ts";
import { publishedKeys } from "../signing-keys.ts";
import { signingKeyToProto } from "./convert-keys.ts";

/** Returns the public keys by which signatures are verified. */
export const getSigningKeys: Handler<typeof KeyService, "getSigningKeys", Context> = async (ctx) => {
  const keys = await publishedKeys(ctx);
  const now = ctx.now();
  return { keys: keys.map((key) => signingKeyToProto(key, signingKeyStatusAt(key, keys, now))) };
};
