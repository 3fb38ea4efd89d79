import { createHash } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BulkFormat, BulkKind } from "@licet/contracts/licet/licensing/v1/bulk_pb";
import type {
  BulkService,
  ExportRequest,
  ExportResponseSchema,
} from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { inTenant } from "@licet/platform/database/database";
import { pageTokenUuid } from "@licet/platform/paging";
import type { Call } from "@licet/platform/rpc/call";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { isSelected, type Selection } from "../domain/bulk.ts";
import { decodeExportToken, encodeExportToken } from "../domain/export-token.ts";
import type { RowFormat } from "../domain/rows.ts";
import { listCustomers } from "../store/customers.ts";
import type { DB } from "../store/schema.ts";
import { listSelected } from "../store/selection.ts";
import { tooSlow } from "../subscriptions.ts";
import { fromEnum } from "./convert.ts";
import { selectionFromProto } from "./convert-bulk.ts";
import { customerToRow, headerOf, licenseToRow, type RowKind, writeRow } from "./convert-rows.ts";
import { requireScope } from "./require-scope.ts";

type Message = MessageInitShape<typeof ExportResponseSchema>;

/** Rows read at once: a license has 150 KiB at most. */
const PAGE_ROWS = 100;
/** A message is sent when it has so many bytes. */
const MESSAGE_BYTES = 64 * 1024;

/** A row and the id behind which an export goes on. */
interface Written {
  readonly id: string;
  /** Empty where the row is not wanted. */
  readonly text: string;
}

/** Sends customers or licenses by id: one page is in memory at a time, and the next one is read when the reader took it. */
export const exportRows: Handler<typeof BulkService, "export", Context> = async function* (ctx, call, request) {
  const kind = fromEnum<RowKind>(BulkKind, request.kind);
  const format = fromEnum<RowFormat>(BulkFormat, request.format);
  if (kind === "customers") requireScope(call, "customers:read");
  const selection = selectionFromProto(request.selection);
  const what = identityOf(call.tenant, request);
  const { limits, db } = ctx.subscriptions;
  call.cutOff({ slowAfterMs: limits.slowAfterMs, tooSlow });
  let after = beginning(request.resumeToken, what, kind);
  let text = after === undefined && format === "csv" ? headerOf(kind) : "";
  let rows = 0;
  const message = (): Message => {
    const data = Buffer.from(text);
    const piece = { data, rows, resumeToken: encodeExportToken(what, after ?? "") };
    text = "";
    rows = 0;
    return piece;
  };
  for (;;) {
    const read = (tx: Transaction<DB>) => readPage(ctx, tx, call, { kind, format, selection, after: after ?? "" });
    const page = await inTenant(db, call.tenant, read, { readOnly: true });
    for (const row of page) {
      after = row.id;
      text += row.text;
      if (row.text !== "") rows++;
      if (text.length >= MESSAGE_BYTES) yield message();
    }
    call.signal.throwIfAborted();
    if (page.length < PAGE_ROWS) break;
  }
  // Also where there is nothing: whoever keeps the token of it needs not to begin anew.
  yield message();
};

/** What makes an export another one than others, as a digest. */
function identityOf(tenant: string, { kind, format, selection }: ExportRequest): string {
  const parts = [tenant, kind, format, selectionFromProto(selection)];
  return createHash("sha256").update(JSON.stringify(parts)).digest("base64url");
}

function beginning(token: string, what: string, kind: RowKind): string | undefined {
  if (token === "") return undefined;
  const id = decodeExportToken(token, what);
  return kind === "licenses" && id !== "" ? pageTokenUuid(id) : id;
}

interface Page {
  readonly kind: RowKind;
  readonly format: RowFormat;
  readonly selection: Selection;
  /** Empty: from the first row on. */
  readonly after: string;
}

async function readPage(
  ctx: Context,
  tx: Transaction<DB>,
  { tenant }: Call,
  { kind, format, selection, after }: Page,
): Promise<Written[]> {
  if (kind === "customers") {
    const customers = await listCustomers(tx, tenant, "", after, PAGE_ROWS);
    return customers.map((customer) => ({
      id: customer.customerId,
      text: writeRow(kind, format, customerToRow(customer)),
    }));
  }
  const licenses = await listSelected(tx, tenant, selection, after || undefined, PAGE_ROWS);
  const now = ctx.now();
  return licenses.map((license) => {
    const wanted = isSelected(license, selection, now);
    return { id: license.licenseId, text: wanted ? writeRow(kind, format, licenseToRow(license, now)) : "" };
  });
}
