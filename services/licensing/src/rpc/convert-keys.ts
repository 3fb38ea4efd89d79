import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { KeyFormat } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import {
  type LicenseKeySchema,
  LicenseKeyStatus,
  type SigningKeySchema,
  SigningKeyStatus,
} from "@licet/contracts/licet/licensing/v1/license_key_pb";
import { keyStatusAt, type LicenseKey } from "../domain/license-key.ts";
import type * as signing from "../domain/signing-key.ts";
import { optionalTimestamp, toEnum } from "./convert.ts";

/** The wire's form of a license key with its status at `now`. */
export function licenseKeyToProto(key: LicenseKey, now: Date): MessageInitShape<typeof LicenseKeySchema> {
  return {
    keyId: key.keyId,
    customerId: key.customerId,
    format: toEnum(KeyFormat, key.format),
    hint: key.hint,
    licenses: key.licenses.toSorted((one, other) => (one.product < other.product ? -1 : 1)),
    status: toEnum(LicenseKeyStatus, keyStatusAt(key, now)),
    issuedAt: timestampFromDate(key.issuedAt),
    expiresAt: optionalTimestamp(key.expiresAt),
    revokedAt: optionalTimestamp(key.revokedAt),
    revokeReason: key.revokeReason,
    replacedBy: key.replacedBy ?? "",
    kid: key.kid ?? "",
  };
}

/** The wire's form of a signing key. */
export function signingKeyToProto(
  key: signing.SigningKey,
  status: signing.SigningKeyStatus,
): MessageInitShape<typeof SigningKeySchema> {
  return {
    kid: key.kid,
    publicKey: key.publicKey,
    status: toEnum(SigningKeyStatus, status),
    createdAt: timestampFromDate(key.createdAt),
    activeFrom: timestampFromDate(key.activeFrom),
    retiredAt: optionalTimestamp(key.retiredAt),
  };
}
