import { timestampDate } from "@bufbuild/protobuf/wkt";
import { BulkOutcome, type BulkResult } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import { Cycle, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { type License, LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { wrap } from "./progress.ts";

/** What became of a license, or would: its id, and a line for each thing that differs. */
export function resultLines(result: BulkResult): string {
  const { licenseId, before, after, message } = result;
  const head = `${licenseId}  ${before?.customerId ?? ""}`.trimEnd();
  if (result.outcome === BulkOutcome.FAILED) return `${wrap(head, "  ")}${wrap(`  ${message}`, "  ")}`;
  if (!before || !after) return wrap(head, "  ");
  const pairs: [string, string, string][] = [
    ["status", statusOf(before), statusOf(after)],
    ["plan", planOf(before), planOf(after)],
    ["end", endOf(before), endOf(after)],
    ["seats", seatsOf(before), seatsOf(after)],
    ["price", priceOf(result, "Before"), priceOf(result, "After")],
  ];
  const lines = [
    ...pairs.flatMap(([name, was, is]) => (was === is ? [] : [`  ${name} ${was} → ${is}`])),
    ...difference("features", before.features, after.features),
    ...difference("limits", limitsOf(before), limitsOf(after)),
  ];
  return [head, ...lines].map((line) => wrap(line, "    ")).join("");
}

function difference(name: string, was: readonly string[], is: readonly string[]): string[] {
  const gone = was.filter((item) => !is.includes(item)).map((item) => `- ${item}`);
  const come = is.filter((item) => !was.includes(item)).map((item) => `+ ${item}`);
  return gone.length + come.length === 0 ? [] : [`  ${name} ${[...gone, ...come].join(", ")}`];
}

function statusOf({ status }: License): string {
  return LicenseStatus[status]?.toLowerCase() ?? "";
}

function planOf({ plan, planVersion }: License): string {
  return plan === "" ? "none" : `${plan} ${planVersion}`;
}

function endOf({ validUntil }: License): string {
  return validUntil ? timestampDate(validUntil).toISOString() : "never";
}

function seatsOf({ seats }: License): string {
  return seats === undefined ? "unlimited" : `${seats}`;
}

function limitsOf({ limits }: License): string[] {
  return limits.map(
    ({ metric, window, maximum }) => `${metric} ${LimitWindow[window]?.toLowerCase()} ${maximum ?? "unlimited"}`,
  );
}

/** In the currency's own digits after the point, of which most have two. */
function priceOf(result: BulkResult, when: "Before" | "After"): string {
  const price = result[`price${when}`];
  if (!price) return "none";
  const cycle = Cycle[result[`cycle${when}`]]?.toLowerCase();
  const format = new Intl.NumberFormat("en-US", {
    style: "currency",
    currency: price.currency,
    currencyDisplay: "code",
  });
  const { maximumFractionDigits: digits = 2 } = format.resolvedOptions();
  const minor = price.amountMinor.toString().padStart(digits + 1, "0");
  const text = digits === 0 ? minor : `${minor.slice(0, -digits)}.${minor.slice(-digits)}`;
  return `${price.currency} ${text} a ${cycle}`;
}
