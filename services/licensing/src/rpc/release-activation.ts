import {
  type ActivationService,
  ReleaseActivationResponseSchema,
} from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { failure } from "../errors.ts";
import { release } from "../seats.ts";
import { getLicense } from "../store/licenses.ts";
import { activationToProto, seatsToProto } from "./convert-seats.ts";
import { once } from "./once.ts";

/** Frees a seat by the vendor's will. */
export const releaseActivation: Handler<typeof ActivationService, "releaseActivation", Context> = (
  ctx,
  call,
  request,
) =>
  once(ctx, call, request, ReleaseActivationResponseSchema, async (tx) => {
    const { activationId, reason } = request;
    const license = await getLicense(tx, call.tenant, request.licenseId);
    const actor = { actor: call.credential.id, reason };
    const released = await release(ctx, tx, call.tenant, license, activationId, actor);
    if (!released?.activation) {
      const message = `No seat of license ${license.licenseId} is held by activation ${activationId}.`;
      throw failure("ACTIVATION_NOT_FOUND", message);
    }
    return { activation: activationToProto(released.activation), seats: seatsToProto(released.seats) };
  });
