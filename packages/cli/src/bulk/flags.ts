import { BulkFormat, BulkKind, OnExisting } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";

/** What the rows of a file are, by its word. @throws Error in one sentence for another word. */
export function kindOf(word: string | undefined): BulkKind {
  return enumValue("what to move", BulkKind, word ?? "");
}

/** How a file is written: as told, or as its name ends. @throws Error in one sentence when neither says so. */
export function formatOf(flag: string | undefined, file: string | undefined): BulkFormat {
  if (flag !== undefined) return enumValue("--format", BulkFormat, flag);
  if (file?.endsWith(".csv")) return BulkFormat.CSV;
  if (file?.endsWith(".jsonl") || file?.endsWith(".ndjson")) return BulkFormat.JSONL;
  throw new Error("--format is missing: csv or jsonl; the name of the file does not tell");
}

/** What is done with what is there already. */
export function onExistingOf(flag: string): OnExisting {
  return enumValue("--on-existing", OnExisting, flag);
}

/** The flags that select licenses. */
export const selectionFlags = {
  product: { type: "string" },
  plan: { type: "string" },
  "plan-version": { type: "string", multiple: true },
  status: { type: "string", multiple: true },
  customer: { type: "string", multiple: true },
  license: { type: "string", multiple: true },
} as const;

/** The values of {@link selectionFlags}. */
export interface SelectionValues {
  readonly product?: string | undefined;
  readonly plan?: string | undefined;
  readonly "plan-version"?: readonly string[] | undefined;
  readonly status?: readonly string[] | undefined;
  readonly customer?: readonly string[] | undefined;
  readonly license?: readonly string[] | undefined;
}

/** The licenses that flags select. */
export function selectionOf(values: SelectionValues) {
  return {
    product: values.product ?? "",
    plan: values.plan ?? "",
    planVersions: (values["plan-version"] ?? []).map((text) => wholeNumber("--plan-version", text)),
    statuses: (values.status ?? []).map((word) => enumValue("--status", LicenseStatus, word)),
    customerIds: [...(values.customer ?? [])],
    licenseIds: [...(values.license ?? [])],
  };
}

/** A whole number that a flag holds. @throws Error in one sentence when it is none. */
export function wholeNumber(flag: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new Error(`${flag}: ${JSON.stringify(text)} is no whole number`);
}

/** The value of an enum by its word in lower case. */
function enumValue<E extends number>(what: string, type: Readonly<Record<string, string | number>>, word: string): E {
  const words = Object.entries(type).flatMap(([name, value]) =>
    typeof value === "number" && value > 0 ? [name.toLowerCase()] : [],
  );
  if (!words.includes(word)) throw new Error(`${what}: ${JSON.stringify(word)} should be ${words.join(", ")}`);
  // The names of an enum have its values; the reverse entries were left out.
  return type[word.toUpperCase()] as E;
}
