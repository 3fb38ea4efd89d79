import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { implement, type ServiceBinding } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { previewInvoice } from "./preview-invoice.ts";

/** All RPCs of this service. */
export function bind(ctx: Context): ServiceBinding[] {
  return [implement(InvoiceService, ctx, { previewInvoice })];
}
