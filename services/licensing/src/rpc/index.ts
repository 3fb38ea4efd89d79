import type { DescMethod } from "@bufbuild/protobuf";
import { ActivationService } from "@licet/contracts/licet/licensing/v1/activation_service_pb";
import { BulkService } from "@licet/contracts/licet/licensing/v1/bulk_service_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { KeyService } from "@licet/contracts/licet/licensing/v1/key_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { TenantService } from "@licet/contracts/licet/licensing/v1/tenant_service_pb";
import { isPublic } from "@licet/platform/rpc/call";
import { type Handlers, implement, type ServiceBinding } from "@licet/platform/rpc/handlers";
import type { Context } from "../context.ts";
import { activateFeature } from "./activate-feature.ts";
import { activateInstance } from "./activate-instance.ts";
import { cancelBulkOperation } from "./cancel-bulk-operation.ts";
import { cancelImport } from "./cancel-import.ts";
import { cancelLicense } from "./cancel-license.ts";
import { changePlan } from "./change-plan.ts";
import { checkKey } from "./check-key.ts";
import { createAddOn } from "./create-add-on.ts";
import { createApiKey } from "./create-api-key.ts";
import { createCustomer } from "./create-customer.ts";
import { createFeature } from "./create-feature.ts";
import { createPlan } from "./create-plan.ts";
import { createProduct } from "./create-product.ts";
import { createTenant } from "./create-tenant.ts";
import { deactivateFeature } from "./deactivate-feature.ts";
import { deactivateInstance } from "./deactivate-instance.ts";
import { exportRows } from "./export.ts";
import { extendTrial } from "./extend-trial.ts";
import { getAddOn } from "./get-add-on.ts";
import { getBulkOperation } from "./get-bulk-operation.ts";
import { getCustomer } from "./get-customer.ts";
import { getDatabaseTime } from "./get-database-time.ts";
import { getEntitlementSnapshot } from "./get-entitlement-snapshot.ts";
import { getImport } from "./get-import.ts";
import { getLicense } from "./get-license.ts";
import { getPlan } from "./get-plan.ts";
import { getProduct } from "./get-product.ts";
import { getSignedLicense } from "./get-signed-license.ts";
import { getSigningKeys } from "./get-signing-keys.ts";
import { heartbeat } from "./heartbeat.ts";
import { importChunk } from "./import-chunk.ts";
import { issueKey } from "./issue-key.ts";
import { listActivations } from "./list-activations.ts";
import { listAddOns } from "./list-add-ons.ts";
import { listApiKeys } from "./list-api-keys.ts";
import { listBulkResults } from "./list-bulk-results.ts";
import { listCustomers } from "./list-customers.ts";
import { listFeatures } from "./list-features.ts";
import { listImportErrors } from "./list-import-errors.ts";
import { listKeys } from "./list-keys.ts";
import { listLicenseEvents } from "./list-license-events.ts";
import { listLicenses } from "./list-licenses.ts";
import { listPlans } from "./list-plans.ts";
import { listProducts } from "./list-products.ts";
import { listTenants } from "./list-tenants.ts";
import { migrateLicenses } from "./migrate-licenses.ts";
import { provisionLicense } from "./provision-license.ts";
import { publishAddOnVersion } from "./publish-add-on-version.ts";
import { publishPlanVersion } from "./publish-plan-version.ts";
import { releaseActivation } from "./release-activation.ts";
import { renewLicense } from "./renew-license.ts";
import { reportApiKeyUse } from "./report-api-key-use.ts";
import { resolveCredential } from "./resolve-credential.ts";
import { resumeLicense } from "./resume-license.ts";
import { retireSigningKey } from "./retire-signing-key.ts";
import { revealKey } from "./reveal-key.ts";
import { revokeApiKey } from "./revoke-api-key.ts";
import { revokeKey } from "./revoke-key.ts";
import { revokeLicense } from "./revoke-license.ts";
import { rotateApiKey } from "./rotate-api-key.ts";
import { rotateKey } from "./rotate-key.ts";
import { rotateSigningKey } from "./rotate-signing-key.ts";
import { setPaymentStanding } from "./set-payment-standing.ts";
import { startBulkChange } from "./start-bulk-change.ts";
import { startImport } from "./start-import.ts";
import { streamEntitlementSnapshots } from "./stream-entitlement-snapshots.ts";
import { subscribeLicenseEvents } from "./subscribe-license-events.ts";
import { suspendLicense } from "./suspend-license.ts";
import { transferLicense } from "./transfer-license.ts";
import { updateAddOn } from "./update-add-on.ts";
import { updateFeature } from "./update-feature.ts";
import { updateLicense } from "./update-license.ts";
import { updatePlan } from "./update-plan.ts";
import { updateProduct } from "./update-product.ts";

const tenants: Handlers<typeof TenantService, Context> = {
  createTenant,
  listTenants,
  createApiKey,
  listApiKeys,
  rotateApiKey,
  revokeApiKey,
  resolveCredential,
  reportApiKeyUse,
};

const catalog: Handlers<typeof CatalogService, Context> = {
  createProduct,
  getProduct,
  updateProduct,
  listProducts,
  createFeature,
  updateFeature,
  listFeatures,
  createPlan,
  publishPlanVersion,
  updatePlan,
  getPlan,
  listPlans,
  createAddOn,
  publishAddOnVersion,
  updateAddOn,
  getAddOn,
  listAddOns,
};

const customers: Handlers<typeof CustomerService, Context> = { createCustomer, getCustomer, listCustomers };

const licensing: Handlers<typeof LicensingService, Context> = {
  provisionLicense,
  getLicense,
  listLicenses,
  suspendLicense,
  resumeLicense,
  revokeLicense,
  getSignedLicense,
  subscribeLicenseEvents,
  updateLicense,
  renewLicense,
  cancelLicense,
  transferLicense,
  changePlan,
  migrateLicenses,
  extendTrial,
  activateFeature,
  deactivateFeature,
  setPaymentStanding,
  listLicenseEvents,
  getEntitlementSnapshot,
  streamEntitlementSnapshots,
  getDatabaseTime,
};

const keys: Handlers<typeof KeyService, Context> = {
  issueKey,
  rotateKey,
  revokeKey,
  revealKey,
  listKeys,
  getSigningKeys,
  rotateSigningKey,
  retireSigningKey,
};

const activations: Handlers<typeof ActivationService, Context> = {
  checkKey,
  activateInstance,
  heartbeat,
  deactivateInstance,
  listActivations,
  releaseActivation,
};

const bulk: Handlers<typeof BulkService, Context> = {
  startImport,
  importChunk,
  getImport,
  listImportErrors,
  cancelImport,
  export: exportRows,
  startBulkChange,
  getBulkOperation,
  listBulkResults,
  cancelBulkOperation,
};

/** All services of licensing, bound to their context; public methods to one whose database connections are their own. */
export function bindServices(shared: Context): ServiceBinding[] {
  const ofProducts: Context = { ...shared, db: shared.publicCalls.db };
  const ctx = (method: DescMethod) => (isPublic(method) ? ofProducts : shared);
  return [
    implement(TenantService, ctx, tenants),
    implement(CatalogService, ctx, catalog),
    implement(CustomerService, ctx, customers),
    implement(LicensingService, ctx, licensing),
    implement(KeyService, ctx, keys),
    implement(ActivationService, ctx, activations),
    implement(BulkService, ctx, bulk),
  ];
}
