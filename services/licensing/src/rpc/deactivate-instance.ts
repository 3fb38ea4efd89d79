import { create } from "@bufbuild/protobuf";
import {
  type ActivationService,
  type DeactivateInstanceRequest,
  DeactivateInstanceResponseSchema,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { decideKey, decideSeat, type KeyDecision } from "../domain/key-decision.ts";
import { identify } from "../fingerprints.ts";
import type { ProvedKey } from "../known-keys.ts";
import { deactivate } from "../seats.ts";
import type { DB } from "../store/schema.ts";
import { decisionToProto, instanceFromProto, seatsToProto } from "./convert-seats.ts";
import { answerKey, type Outcome, onceByKey, proveKey } from "./presented-key.ts";

/** Gives the seat of an instance back. */
export const deactivateInstance: Handler<typeof ActivationService, "deactivateInstance", Context> = async (
  ctx,
  call,
  request,
) => {
  const proved = await proveKey(ctx, call, request.key);
  const now = ctx.now();
  if ("reading" in proved) {
    return create(DeactivateInstanceResponseSchema, answer(decideKey(proved, request.product, now)));
  }
  return onceByKey(ctx, call, proved, request, DeactivateInstanceResponseSchema, (tx) =>
    giveBack(ctx, tx, proved, request, now),
  );
};

async function giveBack(
  ctx: Context,
  tx: Transaction<DB>,
  { tenantId, keyId }: ProvedKey,
  request: DeactivateInstanceRequest,
  now: Date,
): Promise<Outcome<typeof DeactivateInstanceResponseSchema>> {
  const { decision, product, license } = await answerKey(tx, { tenantId, keyId }, request.product, now);
  // A license that is not in force is no reason to keep its seat; a key that is not proves nothing.
  const proves = decision.reason === "permitted" || decision.reason.startsWith("license_");
  if (!proves || !product || !license) return { denied: answer(decision) };
  const { rules } = product.seatPolicy;
  const { activation, seats } = await deactivate(ctx, tx, tenantId, license, product.seatPolicy, {
    identity: identify(instanceFromProto(request.instance), rules),
    actor: { actor: keyId, reason: "" },
  });
  const used = { seats: seatsToProto(seats) };
  if (!activation) return { done: { ...answer(decideSeat(decision, "not_activated", product.product)), ...used } };
  const message = `The seat of the license of ${product.product} was given back.`;
  return { done: { ...answer({ reason: "permitted", message }), deactivated: true, ...used } };
}

function answer(decision: KeyDecision) {
  const { reason, message } = decisionToProto(decision);
  return { reason, message };
}
