import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { CallOptions } from "@connectrpc/connect";
import { UsageGranularity } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { Call } from "@licet/platform/rpc/call";
import type { Context } from "../context.ts";
import type { Period } from "../domain/calendar.ts";
import type { Charge } from "../domain/charges.ts";
import type { Usage } from "../domain/usage.ts";
import { askingFailed } from "../errors.ts";
import { onBehalfOf } from "./call-options.ts";
import { inParallel } from "./parallel.ts";

const PAGE_SIZE = 5_000;
/** How many pages of one metric are read for an answer. */
const MAX_PAGES = 40;

type Metering = Context["clients"]["metering"];

/**
 * What a customer used up to now of the metrics, and in the months, that charges are for; by UTC day, so that it can be
 * cut into the months of any license.
 *
 * @throws ServiceError INVALID_ARGUMENT when it is too much for one answer; UNAVAILABLE when metering can't be asked
 */
export async function loadUsage(
  metering: Metering,
  call: Call,
  question: { customerId: string; charges: readonly Charge[]; now: Date },
): Promise<Usage[]> {
  const usage = question.charges.filter((charge) => charge.kind === "usage");
  const spans = usage.map((charge) => charge.span);
  const span = cover(spans, question.now);
  if (span === undefined) return [];
  const metrics = [...new Set(usage.map(({ price }) => price.metric))];
  const options = onBehalfOf(call);
  const perMetric = await inParallel(metrics, (metric) =>
    loadMetric(metering, options, { customerId: question.customerId, metric, span }),
  );
  return perMetric.flat();
}

/** The shortest span that holds all others, as far as it has begun. */
function cover(spans: readonly Period[], now: Date): Period | undefined {
  const start = new Date(Math.min(...spans.map((span) => span.start.getTime())));
  const end = new Date(Math.min(now.getTime(), Math.max(...spans.map((span) => span.end.getTime()))));
  return start < end ? { start, end } : undefined;
}

async function loadMetric(
  metering: Metering,
  options: CallOptions,
  { customerId, metric, span }: { customerId: string; metric: string; span: Period },
): Promise<Usage[]> {
  const usage: Usage[] = [];
  const question = {
    customerId,
    metric,
    startTime: timestampFromDate(span.start),
    endTime: timestampFromDate(span.end),
    granularity: UsageGranularity.DAY,
    pageSize: PAGE_SIZE,
  };
  let pageToken = "";
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const reply = await metering.getUsageStats({ ...question, pageToken }, options).catch((error: unknown) => {
      throw askingFailed("usage-metering", error);
    });
    for (const { licenseId, startTime, quantity } of reply.buckets) {
      if (startTime === undefined) throw new Error(`usage-metering answered a bucket of ${metric} without its time`);
      // Senders may write a UUID in capitals; licensing does not.
      const named = licenseId === "" ? undefined : licenseId.toLowerCase();
      usage.push({ metric, licenseId: named, start: timestampDate(startTime), quantity });
    }
    pageToken = reply.nextPageToken;
    if (pageToken === "") return usage;
  }
  throw invalidArgument(
    "period_end",
    `leaves too long a period: it has more than ${MAX_PAGES * PAGE_SIZE} daily sums of ${metric}; ask for a shorter one`,
  );
}
