import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type AddOnOffer,
  type AddOnOfferSchema,
  type AddOnSchema,
  type AddOnTerms as AddOnTermsMessage,
  Cycle,
  LimitWindow,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { AddOnOrder as AddOnOrderMessage } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { invalidArgument } from "@licet/platform/errors";
import type { AddOn, AddOnOrder, AddOnTerms, Offer, Pricing } from "../domain/add-on.ts";
import type { LimitWindow as Window } from "../domain/terms.ts";
import { cycleFromProto, fromEnum, optionalTimestamp, toEnum } from "./convert.ts";

/** How many units a license can hold where the terms don't say. */
const DEFAULT_MAX_QUANTITY = 1_000_000;

/**
 * An add-on's terms out of a request that the contract's rules have passed.
 *
 * @throws ServiceError INVALID_ARGUMENT when they, or an offer's pricing, are absent
 */
export function addOnTermsFromProto(message: AddOnTermsMessage | undefined): AddOnTerms {
  if (!message) throw invalidArgument("terms", "is required");
  return {
    features: message.features,
    limits: message.limits.map(({ metric, window, perUnit }) => ({
      metric,
      window: fromEnum<Window>(LimitWindow, window),
      perUnit,
    })),
    seats: message.seats,
    offers: message.offers.map((offer, index) => ({
      ...(offer.plan !== "" && { plan: offer.plan }),
      pricing: pricingFromProto(offer, `terms.offers[${index}]`),
    })),
    maxQuantity: message.maxQuantity || DEFAULT_MAX_QUANTITY,
  };
}

function pricingFromProto({ pricing, priceCycle }: AddOnOffer, at: string): Pricing {
  if (pricing.case === "free") return { kind: "free" };
  const cycle = cycleFromProto(priceCycle);
  if (!cycle) throw invalidArgument(`${at}.price_cycle`, "is required with a price");
  if (pricing.case === "agreed") return { kind: "agreed", cycle };
  if (pricing.case !== "price") throw invalidArgument(`${at}.pricing`, "must be price, agreed or free");
  const { currency, amountMinor } = pricing.value;
  return { kind: "price", price: { currency, amountMinor, cycle } };
}

/** The wire's form of an add-on in a version. */
export function addOnToProto(addOn: AddOn): MessageInitShape<typeof AddOnSchema> {
  const { features, limits, seats, offers, maxQuantity } = addOn.terms;
  return {
    product: addOn.product,
    addOn: addOn.addOn,
    name: addOn.name,
    version: addOn.version,
    latestVersion: addOn.latestVersion,
    terms: {
      features: [...features],
      limits: limits.map(({ metric, window, perUnit }) => ({ metric, window: toEnum(LimitWindow, window), perUnit })),
      seats,
      offers: offers.map(offerToProto),
      maxQuantity,
    },
    publishedAt: timestampFromDate(addOn.publishedAt),
    retiredAt: optionalTimestamp(addOn.retiredAt),
    etag: addOn.revision.toString(),
  };
}

function offerToProto({ plan = "", pricing }: Offer): MessageInitShape<typeof AddOnOfferSchema> {
  switch (pricing.kind) {
    case "free":
      return { plan, pricing: { case: "free", value: true } };
    case "agreed":
      return { plan, pricing: { case: "agreed", value: true }, priceCycle: toEnum(Cycle, pricing.cycle) };
    case "price": {
      const { cycle, ...price } = pricing.price;
      return { plan, pricing: { case: "price", value: price }, priceCycle: toEnum(Cycle, cycle) };
    }
  }
}

/** The add-ons that a request orders. */
export function addOnOrdersFromProto(orders: readonly AddOnOrderMessage[]): AddOnOrder[] {
  return orders.map(({ addOn, version, quantity, price }) => ({
    addOn,
    version,
    quantity,
    ...(price && { price: { currency: price.currency, amountMinor: price.amountMinor } }),
  }));
}
