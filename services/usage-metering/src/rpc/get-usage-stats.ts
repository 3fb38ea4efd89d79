import { timestampDate, timestampFromDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  UsageGranularity,
  type UsageMeteringService,
} from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { decodePageToken, pageTokenDate, toPage } from "@licet/platform/paging";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { wholeHours } from "../domain/period.ts";
import { type BucketKey, type Granularity, listBuckets, listTotals } from "../store/usage.ts";

const DEFAULT_BUCKETS = 500;
const BUCKET_MS: Readonly<Record<Exclude<Granularity, "total">, number>> = { hour: 3_600_000, day: 86_400_000 };

/** Returns what a customer used. */
export const getUsageStats: Handler<typeof UsageMeteringService, "getUsageStats", Context> = async (
  ctx,
  call,
  request,
) => {
  const { startTime, endTime } = request;
  const period = wholeHours(startTime && timestampDate(startTime), endTime && timestampDate(endTime), ctx.now());
  const { customerId, metric, feature } = request;
  const licenseId = request.licenseId.toLowerCase();
  const filter = { tenant: call.tenant, customerId, metric, feature, licenseId, ...period };
  const granularity = granularityOf(request.granularity);
  const pageSize = request.pageSize || DEFAULT_BUCKETS;
  const after = toBucketKey(decodePageToken(request.pageToken, 4));
  const [rows, totals] = await inTenant(
    ctx.db,
    call.tenant,
    async (tx) =>
      [await listBuckets(tx, filter, granularity, after, pageSize + 1), await listTotals(tx, filter)] as const,
    { readOnly: true },
  );
  const { items, nextPageToken } = toPage(rows, pageSize, (row) => [
    row.start.toISOString(),
    row.metric,
    row.feature,
    row.licenseId,
  ]);
  // The first and the last day may lie in the period only in part.
  const span = (start: Date) => {
    const endMs = granularity === "total" ? period.end.getTime() : start.getTime() + BUCKET_MS[granularity];
    return {
      startTime: timestampFromMs(Math.max(start.getTime(), period.start.getTime())),
      endTime: timestampFromMs(Math.min(endMs, period.end.getTime())),
    };
  };
  return {
    buckets: items.map(({ start, ...bucket }) => ({
      ...bucket,
      ...span(start),
    })),
    totals,
    startTime: timestampFromDate(period.start),
    endTime: timestampFromDate(period.end),
    nextPageToken,
  };
};

function granularityOf(granularity: UsageGranularity): Granularity {
  if (granularity === UsageGranularity.HOUR) return "hour";
  return granularity === UsageGranularity.DAY ? "day" : "total";
}

function toBucketKey(parts: readonly string[] | undefined): BucketKey | undefined {
  if (!parts) return undefined;
  const [start = "", metric = "", feature = "", licenseId = ""] = parts;
  return { start: pageTokenDate(start), metric, feature, licenseId };
}
