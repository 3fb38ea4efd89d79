import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type ActivateInstanceRequest,
  ActivateInstanceResponseSchema,
  type ActivationService,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { decideKey, decideSeat, type KeyDecision } from "../domain/key-decision.ts";
import { heartbeatSeconds } from "../domain/seats.ts";
import { identify } from "../fingerprints.ts";
import type { ProvedKey } from "../known-keys.ts";
import { activate } from "../seats.ts";
import type { DB } from "../store/schema.ts";
import { listHolders } from "../store/seats.ts";
import {
  activationToProto,
  decisionToProto,
  instanceFromProto,
  licenseForProduct,
  seatsToProto,
} from "./convert-seats.ts";
import { answerKey, type Outcome, onceByKey, proveKey } from "./presented-key.ts";

/** Holders that are shown to who finds all seats taken; the contract names the number. */
const MAX_HOLDERS = 20;

/** Takes a seat of the key's license for an instance. */
export const activateInstance: Handler<typeof ActivationService, "activateInstance", Context> = async (
  ctx,
  call,
  request,
) => {
  const proved = await proveKey(ctx, call, request.key);
  const now = ctx.now();
  if ("reading" in proved) {
    return create(ActivateInstanceResponseSchema, answer(decideKey(proved, request.product, now), now));
  }
  return onceByKey(ctx, call, proved, request, ActivateInstanceResponseSchema, (tx) =>
    take(ctx, tx, proved, request, now),
  );
};

async function take(
  ctx: Context,
  tx: Transaction<DB>,
  { tenantId, keyId }: ProvedKey,
  request: ActivateInstanceRequest,
  now: Date,
): Promise<Outcome<typeof ActivateInstanceResponseSchema>> {
  const key = await answerKey(tx, { tenantId, keyId }, request.product, now);
  const { decision, product, license } = key;
  if (!product || !license || decision.reason !== "permitted") {
    return { denied: { ...answer(decision, now), ...(key.seats && { seats: seatsToProto(key.seats) }) } };
  }
  const { seatPolicy } = product;
  const { displayName, version, deploymentId } = request;
  const { activation, seats } = await activate(ctx, tx, tenantId, license, seatPolicy, {
    identity: identify(instanceFromProto(request.instance), seatPolicy.rules),
    heard: { displayName, version, deploymentId },
    actor: { actor: keyId, reason: "" },
  });
  if (activation) {
    const held = { activation: activationToProto(activation), heartbeatSeconds: heartbeatSeconds(seatPolicy) };
    return { done: { ...answer(decision, now), ...held, seats: seatsToProto(seats) } };
  }
  const holders = await listHolders(tx, tenantId, license.licenseId, MAX_HOLDERS);
  const denial = answer(decideSeat(decision, "seats_exhausted", product.product), now);
  return { denied: { ...denial, seats: seatsToProto(seats), holders: holders.map(activationToProto) } };
}

function answer(decision: KeyDecision, now: Date) {
  return { ...decisionToProto(decision), ...licenseForProduct(decision, now), checkedAt: timestampFromDate(now) };
}
