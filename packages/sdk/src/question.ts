import type { Question as DecideQuestion } from "@licet/decide/decide";
import { invalidArgument } from "./errors.ts";
import type { QuestionContext } from "./verdict.ts";

/** The longest customer id, in characters. */
const MAX_CUSTOMER_ID = 255;
const featurePattern = /^[a-z0-9][a-z0-9_.-]{0,62}$/;
const noValues: ReadonlyMap<string, string> = new Map();

/**
 * The question as it is decided: `product` taken out of the context, values as decimals.
 *
 * @throws {LicetError} INVALID_ARGUMENT naming the argument that can't be right.
 */
export function toQuestion(customerId: string, feature: string, context: QuestionContext | undefined): DecideQuestion {
  checkCustomerId(customerId);
  checkFeature("feature", feature);
  if (context === undefined) return { customerId, feature, product: undefined, values: noValues };
  const values = new Map(Object.entries(toContext(context)));
  const product = values.get("product");
  values.delete("product");
  return { customerId, feature, product, values };
}

/** The context as it is sent. @throws {LicetError} INVALID_ARGUMENT for a value that is neither text nor a finite number. */
export function toContext(context: QuestionContext): Record<string, string> {
  return Object.fromEntries(
    Object.entries(context).map(([key, value]) => {
      const good = typeof value === "string" || typeof value === "bigint" || Number.isFinite(value);
      if (!good) throw invalidArgument(`context["${key}"]`, `is ${String(value)}, must be a text or a finite number`);
      return [key, String(value)];
    }),
  );
}

/** @throws {LicetError} INVALID_ARGUMENT unless it is a text of 1 to 255 characters. */
export function checkCustomerId(customerId: unknown): void {
  if (typeof customerId === "string" && customerId.length > 0 && isShort(customerId)) return;
  const found = typeof customerId === "string" ? `has ${customerId.length} characters` : `is ${typeof customerId}`;
  throw invalidArgument("customerId", `${found}, must be a text of 1 to ${MAX_CUSTOMER_ID} characters`);
}

/** @throws {LicetError} INVALID_ARGUMENT, naming `field`, unless it is a feature's code. */
export function checkFeature(field: string, feature: unknown): void {
  if (typeof feature === "string" && featurePattern.test(feature)) return;
  throw invalidArgument(
    field,
    `is ${JSON.stringify(feature)}, must be a feature's code such as "egx_access": a-z, 0-9, ".", "_", "-", 63 at most`,
  );
}

/** The contract counts characters, of which some take two places in a string. */
function isShort(customerId: string): boolean {
  if (customerId.length <= MAX_CUSTOMER_ID) return true;
  return customerId.length <= 2 * MAX_CUSTOMER_ID && [...customerId].length <= MAX_CUSTOMER_ID;
}
