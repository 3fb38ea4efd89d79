import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  BulkAction,
  BulkFormat,
  BulkKind,
  type BulkOperationSchema,
  BulkOperationStatus,
  type ImportErrorSchema,
  type ImportSchema,
  ImportStatus,
  type LicenseSelection,
  OnExisting,
} from "@licet/contracts/licet/licensing/v1/bulk_pb";
import type { StartImportRequest } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { invalidArgument } from "@licet/platform/errors";
import { everything, type Selection } from "../domain/bulk.ts";
import type { BulkOperation } from "../store/bulk.ts";
import type { Import, ImportSettings, RowError } from "../store/imports.ts";
import { fromEnum, toEnum } from "./convert.ts";

/** What a request wants to import. */
export function settingsFromProto(request: StartImportRequest): ImportSettings {
  return {
    importId: request.importId,
    kind: fromEnum<ImportSettings["kind"]>(BulkKind, request.kind),
    format: fromEnum<ImportSettings["format"]>(BulkFormat, request.format),
    dryRun: request.dryRun,
    onExisting: fromEnum<ImportSettings["onExisting"]>(OnExisting, request.onExisting || OnExisting.FAIL),
  };
}

/** The wire's form of an import. */
export function importToProto(state: Import, firstErrors: readonly RowError[]): MessageInitShape<typeof ImportSchema> {
  const { counts } = state;
  return {
    importId: state.importId,
    kind: toEnum(BulkKind, state.kind),
    format: toEnum(BulkFormat, state.format),
    dryRun: state.dryRun,
    onExisting: toEnum(OnExisting, state.onExisting),
    status: toEnum(ImportStatus, state.status),
    nextOffset: BigInt(state.nextOffset),
    rows: counts.created + counts.updated + counts.unchanged + counts.skipped + counts.failed,
    ...counts,
    firstErrors: firstErrors.map(rowErrorToProto),
    failure: state.failure,
    createdAt: timestampFromDate(state.createdAt),
    updatedAt: timestampFromDate(state.updatedAt),
  };
}

/** The wire's form of something wrong with a row. */
export function rowErrorToProto(error: RowError): MessageInitShape<typeof ImportErrorSchema> {
  const { field, message, reason } = error;
  return { line: BigInt(error.line), field, message, reason };
}

/**
 * Which licenses a request means; all where it has no selection.
 *
 * @throws ServiceError INVALID_ARGUMENT for a plan without its product, or versions without their plan
 */
export function selectionFromProto(message: LicenseSelection | undefined): Selection {
  if (!message) return everything;
  const { product, plan, planVersions, statuses, customerIds, licenseIds } = message;
  if (plan !== "" && product === "") throw invalidArgument("selection.product", "is required with a plan");
  if (planVersions.length > 0 && plan === "") throw invalidArgument("selection.plan", "is required with plan_versions");
  return {
    product,
    plan,
    planVersions,
    statuses: statuses.map((status) => fromEnum(LicenseStatus, status)),
    customerIds,
    licenseIds: licenseIds.map((id) => id.toLowerCase()),
  };
}

/** The wire's form of a bulk operation. */
export function operationToProto(operation: BulkOperation): MessageInitShape<typeof BulkOperationSchema> {
  const { counts, selection } = operation;
  return {
    operationId: operation.operationId,
    action: toEnum(BulkAction, operation.change.action),
    selection: {
      ...selection,
      planVersions: [...selection.planVersions],
      statuses: selection.statuses.map((status) => toEnum(LicenseStatus, status)),
      customerIds: [...selection.customerIds],
      licenseIds: [...selection.licenseIds],
    },
    dryRun: operation.dryRun,
    reason: operation.reason,
    status: toEnum(BulkOperationStatus, operation.status),
    total: operation.total,
    lookedAt: counts.changed + counts.unchanged + counts.failed + counts.skipped,
    ...counts,
    actor: operation.actor,
    createdAt: timestampFromDate(operation.createdAt),
    updatedAt: timestampFromDate(operation.updatedAt),
  };
}
