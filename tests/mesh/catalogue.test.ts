import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { InvoiceLineKind } from "@licet/contracts/licet/billing/v1/invoice_pb";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { CatalogService } from "@licet/contracts/licet/licensing/v1/catalog_service_pb";
import { CustomerService } from "@licet/contracts/licet/licensing/v1/customer_service_pb";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { DecisionReason, ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { newId } from "@licet/platform/ids";
import { startLicet, type TestLicet } from "./licet.ts";

// What is sold, by all services together, on the demo data.

let licet: TestLicet;

beforeAll(async () => {
  licet = await startLicet({ seed: true });
});
afterAll(() => licet.stop());

/** A customer of its own with a license, and what it may do. */
async function newLicense(tenant: string, product: string, plan: string) {
  const transport = licet.as(tenant, "admin");
  const requestId = newId();
  const { customer } = await createClient(CustomerService, transport).createCustomer({ requestId, name: "C" });
  const customerId = customer?.customerId as string;
  const licensing = createClient(LicensingService, transport);
  const { license } = await licensing.provisionLicense({ requestId: newId(), customerId, product, plan });
  const licenseId = license?.licenseId as string;
  const validation = createClient(ValidationService, licet.as(tenant, "service"));
  const set = async (addOns: { addOn: string; quantity: number }[]) => {
    const updateMask = { paths: ["add_ons"] };
    const { consistencyToken } = await licensing.updateLicense({ requestId: newId(), licenseId, updateMask, addOns });
    return { atLeast: consistencyToken as NonNullable<typeof consistencyToken> };
  };
  return { customerId, licenseId, licensing, validation, set };
}

test("ValidateFeature sees the features of an add-on from the write on that gives it, until the one that takes it", async () => {
  const { customerId, validation, set } = await newLicense("tradsys", "trading", "standard");
  const ask = { customerId, feature: "sukuk_trading" };
  const given = await set([{ addOn: "islamic-finance", quantity: 1 }]);
  expect(await validation.validateFeature({ ...ask, ...given })).toMatchObject({ valid: true });
  const taken = await set([]);
  expect(await validation.validateFeature({ ...ask, ...taken })).toMatchObject({
    valid: false,
    reason: DecisionReason.FEATURE_NOT_IN_PLAN,
  });
});

test("ValidateFeature counts against the limit that units raise", async () => {
  const { customerId, validation, set } = await newLicense("localmind", "platform", "professional");
  const violations = async (terabytes: string, token: object) => {
    const context = { data_volume_tb: terabytes };
    const ask = { customerId, feature: "custom_models", context, ...token };
    return (await validation.validateFeature(ask)).limitViolations.map(({ limit }) => limit);
  };
  const two = await set([{ addOn: "extra-tb", quantity: 2 }]);
  expect(await violations("5", two)).toEqual([]);
  expect(await violations("5.001", two)).toEqual([5n]);
  const none = await set([]);
  expect(await violations("3.001", none)).toEqual([3n]);
});

test("delta-foods has 4 TB, its plan's promises, and pays for its extra terabyte beside the plan", async () => {
  const transport = licet.as("localmind", "viewer");
  const holder = { case: "customerId", value: "delta-foods" } as const;
  const [license] = (await createClient(LicensingService, transport).listLicenses({ holder })).licenses;
  expect(license).toMatchObject({
    plan: "professional",
    addOns: [{ addOn: "extra-tb", quantity: 1, price: { currency: "USD", amountMinor: 400_000n } }],
    attributes: { model_size: "medium", support: "priority", sla: "99.5 %", trainings: "2", integrations: "limited" },
  });
  expect(license?.limits.find(({ metric }) => metric === "data_volume_tb")?.maximum).toBe(4n);
  const periodStart = license?.validFrom as NonNullable<NonNullable<typeof license>["validFrom"]>;
  const invoices = createClient(InvoiceService, transport);
  const { invoice } = await invoices.previewInvoice({ customerId: "delta-foods", periodStart });
  expect(invoice?.lines.map(({ kind, amount }) => [kind, amount?.amountMinor])).toEqual([
    [InvoiceLineKind.BASE, 6_000_000n],
    [InvoiceLineKind.ADD_ON, 400_000n],
  ]);
});

test("the demo sells what product.md lists: prices a year, and what an extra costs with which plan", async () => {
  const priced = async (tenant: string) => {
    const catalog = createClient(CatalogService, licet.as(tenant, "viewer"));
    const [{ plans }, { addOns }] = await Promise.all([catalog.listPlans({}), catalog.listAddOns({})]);
    return {
      plans: plans.map(({ plan, terms }) => [plan, terms?.price?.amountMinor, terms?.features.length]),
      addOns: addOns.map(({ addOn, terms }) => [
        addOn,
        ...(terms?.offers ?? []).map(({ plan, pricing }) =>
          [plan, pricing.case === "price" ? pricing.value.amountMinor : pricing.case].join(" "),
        ),
      ]),
    };
  };
  expect(await priced("tradsys")).toEqual({
    plans: [
      ["enterprise", 5_000_000n, 1],
      ["standard", 2_500_000n, 5],
      ["trial", undefined, 2],
    ],
    addOns: [
      ["islamic-finance", "standard 1000000"],
      ["middle-east", "standard 1500000"],
    ],
  });
  expect(await priced("localmind")).toEqual({
    plans: [
      ["enterprise", 12_000_000n, 1],
      ["professional", 6_000_000n, 3],
      ["starter", 3_000_000n, 1],
    ],
    addOns: [["extra-tb", "starter 500000", "professional 400000", "enterprise agreed"]],
  });
});
