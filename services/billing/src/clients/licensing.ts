import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { CallOptions } from "@connectrpc/connect";
import { type Plan, Cycle as WireCycle } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { License, LicenseAddOn } from "@licet/contracts/licet/licensing/v1/license_pb";
import type { Call } from "@licet/platform/rpc/call";
import type { Context } from "../context.ts";
import type { Cycle, PricedAddOn, PricedLicense, Prices } from "../domain/pricing.ts";
import { askingFailed } from "../errors.ts";
import { onBehalfOf } from "./call-options.ts";
import { inParallel } from "./parallel.ts";

const PAGE_SIZE = 500;
/** Licensing lets a customer hold 500 licenses; more pages than this mean that something is wrong. */
const MAX_PAGES = 20;

type Clients = Context["clients"];

/**
 * The licenses of a customer that cost something, oldest first, whatever their status: billing goes by when a license
 * begins and ends. So a suspended license is billed on, until it ends.
 *
 * @throws ServiceError NOT_FOUND `CUSTOMER_NOT_FOUND`; UNAVAILABLE when licensing can't be asked
 */
export async function loadPricedLicenses(clients: Clients, call: Call, customerId: string): Promise<PricedLicense[]> {
  const options = onBehalfOf(call);
  try {
    const [licenses] = await Promise.all([
      listLicenses(clients, options, customerId),
      clients.customers.getCustomer({ customerId }, options),
    ]);
    const planned = licenses.filter(({ plan }) => plan !== "");
    const prices = await loadPrices(clients, options, planned);
    return planned.flatMap((license) => pricedLicense(license, prices.get(planKey(license))) ?? []);
  } catch (error) {
    throw askingFailed("licensing", error);
  }
}

async function listLicenses(clients: Clients, options: CallOptions, customerId: string): Promise<License[]> {
  const licenses: License[] = [];
  let pageToken = "";
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const holder = { case: "customerId", value: customerId } as const;
    const reply = await clients.licenses.listLicenses({ holder, pageSize: PAGE_SIZE, pageToken }, options);
    licenses.push(...reply.licenses);
    pageToken = reply.nextPageToken;
    if (pageToken === "") return licenses;
  }
  throw new Error(`licensing lists more than ${MAX_PAGES * PAGE_SIZE} licenses of one customer`);
}

/** The prices of the plan versions that licenses have, each asked for once, by {@link planKey}. */
async function loadPrices(
  clients: Clients,
  options: CallOptions,
  licenses: readonly License[],
): Promise<ReadonlyMap<string, Prices>> {
  const versions = new Map(licenses.map((license) => [planKey(license), license]));
  const loaded = await inParallel([...versions], async ([key, { product, plan, planVersion }]) => {
    const reply = await clients.catalog.getPlan({ product, plan, version: planVersion }, options);
    if (reply.plan === undefined) throw new Error(`licensing answered without the plan ${key}`);
    return [key, toPrices(reply.plan)] as const;
  });
  return new Map(loaded);
}

function planKey({ product, plan, planVersion }: Pick<License, "product" | "plan" | "planVersion">): string {
  return `${product}/${plan}/${planVersion}`;
}

function toPrices({ plan, name, terms }: Plan): Prices {
  const price = terms?.price;
  return {
    plan,
    planName: name,
    base: price && {
      currency: price.currency,
      amountMinor: price.amountMinor,
      cycle: toCycle(terms.priceCycle, `the price of plan ${plan}`),
    },
    usage: (terms?.usagePrices ?? []).map(({ metric, includedPerMonth, unitPrice }) => {
      if (unitPrice === undefined) throw new Error(`plan ${plan} prices ${metric} without a unit price`);
      return { metric, includedPerMonth, currency: unitPrice.currency, decimal: unitPrice.decimal };
    }),
  };
}

function pricedLicense(license: License, prices: Prices | undefined): PricedLicense | undefined {
  const { licenseId, product, validFrom, validUntil, endedAt, billingCycle } = license;
  if (prices === undefined) return undefined;
  const addOns = license.addOns.flatMap((held) => pricedAddOn(license, held) ?? []);
  if (prices.base === undefined && prices.usage.length === 0 && addOns.length === 0) return undefined;
  if (validFrom === undefined) throw new Error(`license ${licenseId} has no valid_from`);
  const ends = [validUntil, endedAt].flatMap((time) => (time === undefined ? [] : timestampDate(time).getTime()));
  return {
    licenseId,
    product,
    prices,
    addOns,
    validFrom: timestampDate(validFrom),
    endsAt: ends.length === 0 ? undefined : new Date(Math.min(...ends)),
    billingCycle:
      billingCycle === WireCycle.UNSPECIFIED ? undefined : toCycle(billingCycle, `the billing of license ${licenseId}`),
  };
}

/** Units that cost something; what they cost was settled when they were sold, and stands on the license. */
function pricedAddOn(
  { licenseId }: License,
  { addOn, quantity, price, priceCycle }: LicenseAddOn,
): PricedAddOn | undefined {
  if (price === undefined) return undefined;
  const { currency, amountMinor } = price;
  const cycle = toCycle(priceCycle, `add-on ${addOn} of license ${licenseId}`);
  return { addOn, quantity, price: { currency, amountMinor, cycle } };
}

/** A cycle that only a newer licensing service knows must not be billed as another one. */
function toCycle(cycle: WireCycle, of: string): Cycle {
  if (cycle === WireCycle.MONTH) return "month";
  if (cycle === WireCycle.YEAR) return "year";
  throw new Error(`${of} has the cycle ${cycle}, which is neither month nor year`);
}
