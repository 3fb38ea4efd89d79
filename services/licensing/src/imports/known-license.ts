import { create, type JsonValue, toJson } from "@bufbuild/protobuf";
import { LicenseRowSchema } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { LicenseChangeCause } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { License } from "../domain/license.ts";
import { type LicenseUpdate, renew, update } from "../domain/lifecycle.ts";
import { checkFeaturesAndLimits } from "../domain/terms.ts";
import { failure } from "../errors.ts";
import { changeLicense } from "../lifecycle.ts";
import { dateFromProto, limitsFromProto } from "../rpc/convert.ts";
import { licenseToRow } from "../rpc/convert-rows.ts";
import { checkFeaturesExist } from "../store/catalog.ts";
import type { NumberedRow, Work } from "./rows.ts";

type LicenseRow = NumberedRow<"licenses">["message"];
type Json = Readonly<Record<string, JsonValue>>;

/** What an update takes over, by the field of the row. */
const readers: Readonly<Record<string, (row: LicenseRow) => LicenseUpdate>> = {
  metadata: ({ metadata }) => ({ metadata }),
  seats: ({ seats }) => (seats === undefined ? {} : { seats: seats < 0n ? "unlimited" : Number(seats) }),
  auto_renew: ({ autoRenew }) => ({ autoRenew }),
  grace_days: ({ graceDays }) => (graceDays === undefined ? {} : { graceDays }),
  features: ({ features }) => ({ features: features.length > 0 ? features : ["*"] }),
  limits: ({ limits }) => ({ limits: limitsFromProto(limits) }),
};
/** Fields that an empty cell leaves as they are: there is no empty value of them. */
const KEPT_WHEN_EMPTY: ReadonlySet<string> = new Set([
  "license_id",
  "customer_id",
  "product",
  "plan_version",
  "seats",
  "valid_from",
  "valid_until",
  "grace_days",
  "billing_cycle",
  "status",
  "ended_at",
  "created_at",
]);

/**
 * Brings a license that is there to what a row names: its end as by RenewLicense, the rest as by UpdateLicense.
 *
 * @throws ServiceError FAILED_PRECONDITION `ROW_DIFFERS` where the row names something that an import does not change
 */
export async function updateKnown(
  work: Work,
  license: License,
  row: NumberedRow<"licenses">,
): Promise<"updated" | "unchanged"> {
  const differing = differences(license, row, work.now);
  const fixed = differing.filter((field) => !(field in readers) && field !== "valid_until");
  const [field] = fixed;
  if (field !== undefined) {
    const message = `License ${license.licenseId} has another ${field}; an import changes ${Object.keys(readers).join(", ")} and valid_until.`;
    throw failure("ROW_DIFFERS", message, { field });
  }
  const { ctx, tx, call } = work;
  const asked = { licenseId: license.licenseId, etag: "", reason: `import ${work.settings.importId}` };
  if (differing.includes("valid_until")) {
    const until = dateFromProto("valid_until", row.message.validUntil);
    if (!until) throw invalidArgument("valid_until", "must not be empty");
    await changeLicense(ctx, tx, call, asked, (before, now) => ({
      cause: LicenseChangeCause.RENEWED,
      license: renew(before, { until }, undefined, now),
    }));
  }
  const named = Object.assign({}, ...differing.map((name) => readers[name]?.(row.message) ?? {})) as LicenseUpdate;
  if (Object.keys(named).length > 0) {
    await changeLicense(ctx, tx, call, asked, async (before, now) => {
      const after = update(before, named, now);
      checkFeaturesAndLimits(after, "");
      if (named.features) await checkFeaturesExist(tx, call.tenant, after.product, named.features);
      return { cause: LicenseChangeCause.UPDATED, license: after };
    });
  }
  return differing.length > 0 ? "updated" : "unchanged";
}

/** The fields that a row names otherwise than the license has them. */
function differences(license: License, row: NumberedRow<"licenses">, now: Date): string[] {
  const is = json(create(LicenseRowSchema, licenseToRow(license, now)));
  const wanted = json(row.message);
  return [...row.given()].filter((field) => {
    const value = wanted[field];
    if (value === undefined && KEPT_WHEN_EMPTY.has(field)) return false;
    // Texts and lists that are empty are absent on both sides.
    return canonical(field, completed(field, value, is[field])) !== canonical(field, is[field]);
  });
}

/** What tells the parts of a list from each other. */
const partKeys: Readonly<Record<string, string>> = { add_ons: "add_on", grants: "feature" };

/** A list of a row as it is when what its parts leave out, such as versions and prices, was filled in as the license has it. */
function completed(field: string, wanted: JsonValue | undefined, is: JsonValue | undefined): JsonValue | undefined {
  const key = partKeys[field];
  if (key === undefined || !Array.isArray(wanted)) return wanted;
  const codeOf = (part: JsonValue) => String((part as Json)[key]);
  const held = new Map((Array.isArray(is) ? is : []).map((part) => [codeOf(part), part as Json]));
  const parts = wanted.map((part) => ({ ...held.get(codeOf(part)), ...(part as Json) }));
  return parts.sort((a, b) => (codeOf(a) < codeOf(b) ? -1 : 1));
}

function json(message: LicenseRow): Json {
  return toJson(LicenseRowSchema, message, { useProtoFieldName: true }) as Json;
}

function canonical(field: string, value: JsonValue | undefined): string {
  if (field === "license_id") return String(value).toLowerCase();
  if (field === "metadata") return JSON.stringify(Object.entries(value ?? {}).sort(([a], [b]) => (a < b ? -1 : 1)));
  return JSON.stringify(value ?? null);
}
