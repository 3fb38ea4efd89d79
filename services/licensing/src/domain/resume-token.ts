import { invalidArgument, type ServiceError } from "@licet/platform/errors";

const FIELD = "resume_token";
/** Version, position and tenant. A position has 18 digits at most, so it fits int8. */
const pattern = /^1:(\d{1,18}):([a-z0-9_.-]{1,63})$/;

/** The opaque token of a position among the published events of a tenant. */
export function encodeResumeToken(tenant: string, position: bigint): string {
  return Buffer.from(`1:${position}:${tenant}`).toString("base64url");
}

/**
 * The position that a token stands for.
 *
 * @param last - the position of the tenant's last published event
 * @throws ServiceError INVALID_ARGUMENT when it is no token, another tenant's, or lies ahead of the history
 */
export function decodeResumeToken(token: string, tenant: string, last: bigint): bigint {
  const text = Buffer.from(token, "base64url").toString("latin1");
  const [, position, owner] = pattern.exec(text) ?? [];
  // One spelling only: decoding passes over what is not base64url.
  if (position === undefined || owner !== tenant || encodeResumeToken(tenant, BigInt(position)) !== token) {
    throw foreignToken();
  }
  if (BigInt(position) > last) {
    throw invalidArgument(
      FIELD,
      "lies ahead of the history, which was restored from a backup: begin anew, from SUBSCRIPTION_START_EARLIEST",
    );
  }
  return BigInt(position);
}

function foreignToken(): ServiceError {
  return invalidArgument(
    FIELD,
    "is not a token of this tenant; use resume_token of the last message that was dealt with",
  );
}
