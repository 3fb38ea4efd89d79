import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import {
  type LicensingService,
  type UpdateLicenseRequest,
  UpdateLicenseResponseSchema,
} from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { sellToLicense } from "../add-ons.ts";
import type { Context } from "../context.ts";
import type { AddOnOrder } from "../domain/add-on.ts";
import { type LicenseUpdate, update } from "../domain/lifecycle.ts";
import { checkFeaturesAndLimits } from "../domain/terms.ts";
import { changeLicense } from "../lifecycle.ts";
import { checkFeaturesExist } from "../store/catalog.ts";
import { limitsFromProto } from "./convert.ts";
import { addOnOrdersFromProto } from "./convert-add-ons.ts";
import { type Readers, readMask } from "./mask.ts";
import { once } from "./once.ts";

/** What an update names, with add-ons as they are ordered. */
type Named = Omit<LicenseUpdate, "addOns"> & { addOns?: AddOnOrder[] };

const readers: Readers<UpdateLicenseRequest, Named> = {
  metadata: ({ metadata }) => ({ metadata }),
  seats: ({ seats }) => ({ seats: seats ?? "unlimited" }),
  auto_renew: ({ autoRenew }) => ({ autoRenew }),
  grace_days: ({ graceDays }) => ({ graceDays }),
  features: ({ features }) => ({ features: features.length > 0 ? features : ["*"] }),
  limits: ({ limits }) => ({ limits: limitsFromProto(limits) }),
  add_ons: ({ addOns }) => ({ addOns: addOnOrdersFromProto(addOns) }),
  cancels_at: () => ({ keep: true }),
};

/** Changes the fields of a license that a mask names. */
export const updateLicense: Handler<typeof LicensingService, "updateLicense", Context> = async (ctx, call, request) => {
  const { addOns: orders, ...rest } = readMask(readers, request);
  return once(ctx, call, request, UpdateLicenseResponseSchema, (tx) => {
    return changeLicense(ctx, tx, call, request, async (before, now) => {
      const addOns = orders && (await sellToLicense(tx, call.tenant, before, orders));
      const named: LicenseUpdate = { ...rest, ...(addOns && { addOns }) };
      const license = update(before, named, now);
      checkFeaturesAndLimits(license.base, "");
      if (named.features) await checkFeaturesExist(tx, call.tenant, license.product, named.features);
      return { cause: LicenseChangeCause.UPDATED, license };
    });
  });
};
