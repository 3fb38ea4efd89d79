import type { DescMessage, Message, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { runOnce } from "@licet/platform/idempotency";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import type { DB } from "../store/schema.ts";

/**
 * Carries out a mutation: once for its `request_id`, in one transaction, and then hints the relay that there is
 * something to publish.
 *
 * @param options.secret - whether the reply holds a secret and is stored encrypted
 */
export async function once<O extends DescMessage>(
  ctx: Context,
  call: Call,
  request: Message & { readonly requestId: string },
  reply: O,
  work: (tx: Transaction<DB>) => Promise<MessageInitShape<O>>,
  options: { readonly secret?: boolean } = {},
): Promise<MessageShape<O>> {
  const vault = options.secret ? { secret: ctx.vault } : {};
  const message = await runOnce(ctx.db, call, request, reply, work, vault);
  ctx.wakeRelay();
  return message;
}
