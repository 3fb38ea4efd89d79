import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type {
  ActivationService,
  CheckKeyResponseSchema,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import type { Instance } from "@licet/contracts/licet/licensing/v1/seat_pb";
import { inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { decideKey, decideSeat, type KeyDecision } from "../domain/key-decision.ts";
import type { Activation } from "../domain/seats.ts";
import { identify } from "../fingerprints.ts";
import type { ProvedKey } from "../known-keys.ts";
import { findInstance } from "../seats.ts";
import type { DB } from "../store/schema.ts";
import { findSeat } from "../store/seats.ts";
import {
  activationToProto,
  decisionToProto,
  instanceFromProto,
  licenseForProduct,
  seatsToProto,
} from "./convert-seats.ts";
import { answerKey, type KeyAnswer, proveKey } from "./presented-key.ts";

type Answer = MessageInitShape<typeof CheckKeyResponseSchema>;

/** Tells an installed product what a license key permits. The key is the caller's proof: nothing else says who calls. */
export const checkKey: Handler<typeof ActivationService, "checkKey", Context> = async (ctx, call, request) => {
  const proved = await proveKey(ctx, call, request.key);
  const now = ctx.now();
  if ("reading" in proved) return answer({ decision: decideKey(proved, request.product, now) }, now);
  const check = async (tx: Transaction<DB>): Promise<Answer> => {
    const key = await answerKey(tx, proved, request.product, now);
    if (!key.seats) return answer(key, now);
    const asked = request.instance ? await checkInstance(ctx, tx, proved, key, request.instance) : key;
    return { ...answer(asked, now), seats: seatsToProto(key.seats) };
  };
  return inTenant(ctx.db, proved.tenantId, check, { readOnly: true });
};

interface SeatAnswer {
  readonly decision: KeyDecision;
  readonly activation?: Activation;
}

/** The answer to an instance that asks: it has to hold a seat. */
async function checkInstance(
  ctx: Context,
  tx: Transaction<DB>,
  { tenantId }: ProvedKey,
  { decision, product, license }: KeyAnswer,
  named: Instance,
): Promise<SeatAnswer> {
  if (!product || !license) return { decision };
  const { rules } = product.seatPolicy;
  const which = await findInstance(tx, tenantId, license.licenseId, identify(instanceFromProto(named), rules), rules);
  const activation = await findSeat(tx, tenantId, license.licenseId, ctx.leaseClock(), which);
  if (activation) return { decision, activation };
  return {
    decision: decision.reason === "permitted" ? decideSeat(decision, "not_activated", product.product) : decision,
  };
}

function answer({ decision, activation }: SeatAnswer, now: Date) {
  return {
    ...decisionToProto(decision),
    ...licenseForProduct(decision, now),
    ...(activation && { activation: activationToProto(activation) }),
    checkedAt: timestampFromDate(now),
  };
}
