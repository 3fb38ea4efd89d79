import type { LicensingService } from "@licet/contracts/licensing/licensing_service_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { asCaller } from "../../clients/as-caller.ts";
import type { AliasContext } from "./context.ts";
import { fromLicense } from "./convert.ts";
import { forwardingFailed, licenseNotFound } from "./errors.ts";

/** As many as a customer can hold: they come in one page. */
const MAX_LICENSES = 500;

const inForce: ReadonlySet<LicenseStatus> = new Set([
  LicenseStatus.ACTIVE,
  LicenseStatus.PAST_DUE,
  LicenseStatus.GRACE,
]);

/** Licensing's ListLicenses, in the words of the first plan. */
export const getLicense: Handler<typeof LicensingService, "getLicense", AliasContext> = async (
  ctx,
  call,
  { customerId },
) => {
  const holder = { case: "customerId", value: customerId } as const;
  const { licenses } = await ctx.clients.licenses
    .listLicenses({ holder, pageSize: MAX_LICENSES }, asCaller(call))
    .catch((error: unknown) => {
      throw forwardingFailed("licensing", error);
    });
  const license = licenses.find(({ status }) => inForce.has(status)) ?? licenses.at(-1);
  if (license === undefined) throw licenseNotFound(customerId);
  return { license: fromLicense(license), licenses: licenses.map(fromLicense) };
};
