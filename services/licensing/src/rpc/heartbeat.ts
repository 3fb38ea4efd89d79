import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type {
  ActivationService,
  HeartbeatResponseSchema,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { decideKey, decideSeat, type KeyDecision } from "../domain/key-decision.ts";
import { heartbeatSeconds } from "../domain/seats.ts";
import { identify } from "../fingerprints.ts";
import { findInstance } from "../seats.ts";
import type { DB } from "../store/schema.ts";
import { touchActivation } from "../store/seats.ts";
import { activationToProto, decisionToProto, instanceFromProto } from "./convert-seats.ts";
import { answerKey, proveKey } from "./presented-key.ts";

type Answer = MessageInitShape<typeof HeartbeatResponseSchema>;

/**
 * Begins the lease of an instance anew. Its effect is the same however often it comes, so no reply is kept: a repetition
 * that came late would be told of a seat that is gone.
 */
export const heartbeat: Handler<typeof ActivationService, "heartbeat", Context> = async (ctx, call, request) => {
  const proved = await proveKey(ctx, call, request.key, "heartbeat");
  const now = ctx.now();
  if ("reading" in proved) return answer(decideKey(proved, request.product, now), now);
  const { tenantId } = proved;
  const hear = async (tx: Transaction<DB>): Promise<Answer> => {
    const { decision, product, license } = await answerKey(tx, proved, request.product, now);
    if (decision.reason !== "permitted" || !product || !license) return answer(decision, now);
    const { seatPolicy } = product;
    const { leaseSeconds, rules } = seatPolicy;
    const identity = identify(instanceFromProto(request.instance), rules);
    const which = await findInstance(tx, tenantId, license.licenseId, identity, rules);
    const { version, deploymentId } = request;
    const heard = { displayName: "", version, deploymentId, ...(leaseSeconds !== undefined && { leaseSeconds }) };
    const seat = await touchActivation(tx, tenantId, license.licenseId, ctx.leaseClock(), which, heard);
    if (!seat) return answer(decideSeat(decision, "not_activated", product.product), now);
    const held = { activation: activationToProto(seat), heartbeatSeconds: heartbeatSeconds(seatPolicy) };
    return { ...answer(decision, now), ...held };
  };
  return inTenant(ctx.db, tenantId, hear, { signal: call.signal });
};

function answer(decision: KeyDecision, now: Date) {
  return { ...decisionToProto(decision), checkedAt: timestampFromDate(now) };
}
