import { invalidArgument } from "@licet/platform/errors";
import { failure } from "../errors.ts";
import type { KeyFormat, KeyStyle } from "./license-key.ts";
import type { SeatPolicy } from "./seats.ts";

/** What a tenant sells. */
export interface Product {
  product: string;
  name: string;
  graceDays: number;
  /** How many days an installation may go on without reaching Licet. */
  offlineDays: number;
  /** How its license keys look; absent: it has none. */
  keyStyle?: KeyStyle;
  /** How the seats of its licenses are held. */
  seatPolicy: SeatPolicy;
  /** For how many seconds features that say nothing of their own stay allowed while deciders are cut off; 0: `closed`. */
  failGraceSeconds: number;
  createdAt: Date;
  /** Raised by every update of the product itself; its text is the etag. */
  revision: bigint;
}

/** The fields that an update can name; see `UpdateProductRequest` of the contract. */
export interface ProductUpdate {
  name?: string;
  graceDays?: number;
  offlineDays?: number;
  keyFormat?: KeyFormat | "none";
  /** Empty: none. */
  keyPrefix?: string;
  failGraceSeconds?: number;
  /** As a whole. */
  seatPolicy?: SeatPolicy;
}

/**
 * A product behind an update. How its keys look is fixed once it has licenses that may lie under such keys: whoever reads
 * one must not find two formats, and a prefix names one brand.
 *
 * @param hasLicenses - whether any license of the product was ever sold
 * @throws ServiceError INVALID_ARGUMENT for a format without a prefix or a prefix without a format;
 * FAILED_PRECONDITION `KEY_STYLE_IN_USE`
 */
export function updateProduct(before: Product, named: ProductUpdate, hasLicenses: boolean): Product {
  const { keyFormat, keyPrefix, ...rest } = named;
  const { keyStyle: held, ...kept } = before;
  const format = keyFormat ?? held?.format ?? "none";
  const prefix = keyPrefix ?? held?.prefix ?? "";
  if ((format === "none") !== (prefix === "")) {
    const description =
      format === "none"
        ? "must be empty, and named by update_mask, where the product has no key_format"
        : "is required, and to be named by update_mask, where the product has a key_format";
    throw invalidArgument("key_prefix", description);
  }
  if (held && hasLicenses && (format !== held.format || prefix !== held.prefix)) {
    const message = `The keys of product ${before.product} are ${held.format} with the prefix ${held.prefix}, and licenses of it were sold: neither can change any more.`;
    throw failure("KEY_STYLE_IN_USE", message, { key_format: held.format, key_prefix: held.prefix });
  }
  const keyStyle: KeyStyle | undefined = format === "none" ? undefined : { format, prefix };
  return { ...kept, ...rest, ...(keyStyle && { keyStyle }), revision: before.revision + 1n };
}
