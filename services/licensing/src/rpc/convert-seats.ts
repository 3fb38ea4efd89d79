import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { KeyReason } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import {
  type ActivationSchema,
  type Instance,
  InstanceType,
  type SeatUsageSchema,
} from "@licet/contracts/licet/licensing/v1/seat_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { NamedInstance, InstanceType as Type } from "../domain/instance.ts";
import type { KeyDecision } from "../domain/key-decision.ts";
import type { Activation, Seats } from "../domain/seats.ts";
import { foreignLicenseToProto, fromEnum, optionalTimestamp, toEnum } from "./convert.ts";

/**
 * The instance of a request that the contract's rules have passed.
 *
 * @throws ServiceError INVALID_ARGUMENT when it is absent
 */
export function instanceFromProto(message: Instance | undefined): NamedInstance {
  if (!message) throw invalidArgument("instance", "is required");
  return {
    type: fromEnum<Type>(InstanceType, message.type),
    id: message.id,
    components: new Map(Object.entries(message.components)),
  };
}

/** The wire's form of an activation. */
export function activationToProto(activation: Activation): MessageInitShape<typeof ActivationSchema> {
  const { type, components, activatedAt, lastSeenAt, leaseUntil, ...told } = activation;
  return {
    ...told,
    ...(type === "deployment" && { deploymentId: activation.instanceId }),
    instanceType: toEnum(InstanceType, type),
    components: [...components],
    activatedAt: timestampFromDate(activatedAt),
    lastSeenAt: timestampFromDate(lastSeenAt),
    leaseExpiresAt: optionalTimestamp(leaseUntil),
  };
}

/** The wire's form of how many seats are taken. */
export function seatsToProto({ used, maximum }: Seats): MessageInitShape<typeof SeatUsageSchema> {
  return { used, ...(maximum !== undefined && { maximum }) };
}

/** The wire's form of a decision about a key: whether, why, and the reason in a sentence. */
export function decisionToProto({ reason, message }: KeyDecision) {
  return { valid: reason === "permitted", reason: toEnum(KeyReason, reason), message };
}

/** What a product is told of the license that its key proves: not the tenant's own notes. */
export function licenseForProduct({ license, offlineDays, keyExpiresAt }: KeyDecision, now: Date) {
  return {
    ...(license && { license: foreignLicenseToProto(license, now) }),
    keyExpiresAt: optionalTimestamp(keyExpiresAt),
    offlineDays: offlineDays ?? 0,
  };
}
