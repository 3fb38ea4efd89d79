import type { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import type { Handler } from "@licet/platform/rpc/handlers";
import { loadPricedLicenses } from "../clients/licensing.ts";
import { loadUsage } from "../clients/metering.ts";
import type { Context } from "../context.ts";
import { chargesIn, inOneCurrency } from "../domain/charges.ts";
import { invoiceLines, totalOf } from "../domain/invoice.ts";
import { attribute } from "../domain/usage.ts";
import { invoiceToProto, periodFromProto } from "./convert.ts";

/** Computes what a customer owes for a period by what licensing and metering know now. Nothing is stored. */
export const previewInvoice: Handler<typeof InvoiceService, "previewInvoice", Context> = async (ctx, call, request) => {
  const { customerId, currency: asked } = request;
  const now = ctx.now();
  const period = periodFromProto(request, now);
  const licenses = await loadPricedLicenses(ctx.clients, call, customerId);
  const charges = inOneCurrency(chargesIn(licenses, period), asked);
  const usage = await loadUsage(ctx.clients.metering, call, { customerId, charges, now });
  const lines = invoiceLines(charges, attribute(licenses, usage));
  const currency = asked || charges[0]?.price.currency || ctx.config.defaultCurrency;
  return { invoice: invoiceToProto({ customerId, period, lines, total: totalOf(lines, currency) }) };
};
