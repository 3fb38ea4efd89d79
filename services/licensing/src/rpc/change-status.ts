import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ConsistencyTokenSchema } from "@licet/contracts/licet/licensing/v1/customer_pb";
import type { LicenseSchema } from "@licet/contracts/licet/licensing/v1/license_pb";
import type { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import type { Call } from "@licet/platform/rpc/call";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { type DecidedStatus, type License, statusAt } from "../domain/license.ts";
import { checkResumable, checkTransition } from "../domain/transitions.ts";
import { type LicenseChange, recordLicenseChange } from "../history.ts";
import { raiseEntitlementVersion } from "../store/customers.ts";
import { getLicense, updateLicenseStatus } from "../store/licenses.ts";
import type { DB } from "../store/schema.ts";
import { licenseToProto } from "./convert.ts";

/** A change of status that somebody decided. */
export interface StatusChange {
  licenseId: string;
  to: DecidedStatus;
  cause: Exclude<LicenseChangeCause, LicenseChangeCause.UNSPECIFIED>;
  /** Why, as told by the actor; may be empty. */
  reason: string;
}

/**
 * Changes a license's status as the transition table allows: what suspending, resuming and revoking have in common.
 *
 * @throws ServiceError NOT_FOUND `LICENSE_NOT_FOUND`; FAILED_PRECONDITION `TRANSITION_NOT_ALLOWED`
 */
export async function changeStatus(
  ctx: Context,
  tx: Transaction<DB>,
  call: Call,
  change: StatusChange,
): Promise<{
  license: MessageInitShape<typeof LicenseSchema>;
  consistencyToken: MessageInitShape<typeof ConsistencyTokenSchema>;
}> {
  const { customerId } = await getLicense(tx, call.tenant, change.licenseId);
  // The customer's row lock orders all changes of its licenses; only what is read under it is sure.
  const version = await raiseEntitlementVersion(tx, call.tenant, customerId);
  const license = await getLicense(tx, call.tenant, change.licenseId);
  const now = ctx.now();
  const { licenseId } = license;
  const from = statusAt(license, now);
  if (change.to === "active") checkResumable(licenseId, from);
  else checkTransition(licenseId, from, change.to);
  const changed: License = {
    ...license,
    decidedStatus: change.to,
    statusReason: change.to === "active" ? "" : change.reason,
    updatedAt: now,
    ...(change.to === "revoked" && { endedAt: now }),
  };
  await updateLicenseStatus(tx, call.tenant, changed);
  const { cause, reason } = change;
  const history: LicenseChange = { customerId, version, cause, licenseId, reason };
  await recordLicenseChange(ctx, tx, call, history);
  return { license: licenseToProto(changed, now), consistencyToken: { customerId, version } };
}
