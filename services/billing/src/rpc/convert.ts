import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  InvoiceLineKind,
  type InvoiceLineSchema,
  type InvoiceSchema,
} from "@licet/contracts/licet/billing/v1/invoice_pb";
import type { PreviewInvoiceRequest } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import { addMonths, calendarMonthOf, type Period } from "../domain/calendar.ts";
import type { InvoiceLine } from "../domain/invoice.ts";
import type { Money } from "../domain/money.ts";

/** Between these years a period and the months that start in it can be written in every format. */
const FIRST_YEAR = 1970;
const LAST_YEAR = 2999;

/**
 * The period that a request is about: from `period_start` to `period_end`, or a month from `period_start`, or the present
 * UTC month. That the end is later than the start, and at most 366 days, the contract has seen to.
 *
 * @throws ServiceError INVALID_ARGUMENT for years that no invoice is from
 */
export function periodFromProto(request: PreviewInvoiceRequest, now: Date): Period {
  if (request.periodStart === undefined) return calendarMonthOf(now);
  const start = inRange("period_start", timestampDate(request.periodStart));
  const end = request.periodEnd && inRange("period_end", timestampDate(request.periodEnd));
  return { start, end: end ?? addMonths(start, 1) };
}

function inRange(field: string, time: Date): Date {
  const year = time.getUTCFullYear();
  if (year >= FIRST_YEAR && year <= LAST_YEAR) return time;
  throw invalidArgument(field, `must lie in the years ${FIRST_YEAR} to ${LAST_YEAR}`);
}

/** An invoice as it is answered. */
export function invoiceToProto(invoice: {
  customerId: string;
  period: Period;
  lines: readonly InvoiceLine[];
  total: Money;
}): MessageInitShape<typeof InvoiceSchema> {
  const { customerId, period, lines, total } = invoice;
  return {
    customerId,
    periodStart: timestampFromDate(period.start),
    periodEnd: timestampFromDate(period.end),
    lines: lines.map(lineToProto),
    total: { ...total },
  };
}

const kinds: Readonly<Record<InvoiceLine["kind"], InvoiceLineKind>> = {
  base: InvoiceLineKind.BASE,
  add_on: InvoiceLineKind.ADD_ON,
  usage: InvoiceLineKind.USAGE,
};

function lineToProto(line: InvoiceLine): MessageInitShape<typeof InvoiceLineSchema> {
  const { kind, license, description, span, metric, addOn, amount } = line;
  return {
    kind: kinds[kind],
    licenseId: license.licenseId,
    product: license.product,
    plan: license.prices.plan,
    description,
    serviceStart: timestampFromDate(span.start),
    serviceEnd: timestampFromDate(span.end),
    metric: metric ?? "",
    addOn: addOn ?? "",
    quantity: line.quantity,
    includedQuantity: line.included,
    billableQuantity: line.billable,
    unitPrice: { currency: amount.currency, decimal: line.unitPrice },
    amount: { ...amount },
  };
}
