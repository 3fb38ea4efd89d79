import type { Selectable } from "kysely";
import type { AddedLimit, AddOn, HeldAddOn, Offer, Pricing } from "../domain/add-on.ts";
import type { Cycle, Price } from "../domain/terms.ts";
import type { AddOn as AddOnTable, AddOnVersion } from "./schema.ts";

// jsonb shapes; big integers are strings there because JSON numbers lose them.
type PriceJson = { currency: string; amountMinor: string; cycle: Cycle };
type AddedLimitJson = { metric: string; window: AddedLimit["window"]; perUnit: string };
type OfferJson = { plan: string | null; price: PriceJson | { agreed: Cycle } | null };
type HeldAddOnJson = {
  addOn: string;
  version: number;
  quantity: number;
  price: PriceJson | null;
  features: readonly string[];
  limits: AddedLimitJson[];
  seats: number;
};

/** What units add to limits, as it is stored. */
export function addedLimitsToJson(limits: readonly AddedLimit[]): AddedLimitJson[] {
  return limits.map(({ metric, window, perUnit }) => ({ metric, window, perUnit: perUnit.toString() }));
}

function addedLimitsFromJson(stored: readonly AddedLimitJson[]): AddedLimit[] {
  return stored.map((limit) => ({ ...limit, perUnit: BigInt(limit.perUnit) }));
}

function priceToJson({ currency, amountMinor, cycle }: Price): PriceJson {
  return { currency, amountMinor: amountMinor.toString(), cycle };
}

function priceFromJson(stored: PriceJson): Price {
  return { ...stored, amountMinor: BigInt(stored.amountMinor) };
}

/** Offers as they are stored. */
export function offersToJson(offers: readonly Offer[]): string {
  return JSON.stringify(
    offers.map(({ plan = null, pricing }): OfferJson => {
      if (pricing.kind === "free") return { plan, price: null };
      return { plan, price: pricing.kind === "agreed" ? { agreed: pricing.cycle } : priceToJson(pricing.price) };
    }),
  );
}

function pricingFromJson(price: OfferJson["price"]): Pricing {
  if (price === null) return { kind: "free" };
  return "agreed" in price ? { kind: "agreed", cycle: price.agreed } : { kind: "price", price: priceFromJson(price) };
}

/** The add-ons of a license as they are stored. */
export function heldAddOnsToJson(addOns: readonly HeldAddOn[]): string {
  return JSON.stringify(
    addOns.map(
      ({ price, limits, ...rest }): HeldAddOnJson => ({
        ...rest,
        price: price ? priceToJson(price) : null,
        limits: addedLimitsToJson(limits),
      }),
    ),
  );
}

/** The add-ons of a license out of their stored form. */
export function heldAddOnsFromJson(stored: unknown): HeldAddOn[] {
  return (stored as HeldAddOnJson[]).map(({ price, limits, ...rest }) => ({
    ...rest,
    ...(price && { price: priceFromJson(price) }),
    limits: addedLimitsFromJson(limits),
  }));
}

/** An add-on in a version, out of the two rows that hold it. */
export function addOnFromRow(row: Selectable<AddOnVersion> & Omit<Selectable<AddOnTable>, keyof AddOnVersion>): AddOn {
  return {
    product: row.product,
    addOn: row.add_on,
    name: row.name,
    version: row.version,
    latestVersion: row.latest_version,
    terms: {
      features: row.features,
      limits: addedLimitsFromJson(row.limits as AddedLimitJson[]),
      seats: row.seats,
      offers: (row.offers as OfferJson[]).map(({ plan, price }) => ({
        ...(plan !== null && { plan }),
        pricing: pricingFromJson(price),
      })),
      maxQuantity: row.max_quantity,
    },
    publishedAt: row.published_at,
    ...(row.retired_at !== null && { retiredAt: row.retired_at }),
    revision: row.revision,
  };
}
