import { invalidArgument } from "@licet/platform/errors";
import { failure } from "../errors.ts";

/** A feature that is switched on for one license beyond its plan. */
export interface Grant {
  /** A feature of the license's product. */
  readonly feature: string;
  /** Since when the license has it without a break. */
  readonly activatedAt: Date;
  /** The id of the credential that activated it, or changed it last. */
  readonly activatedBy: string;
  /** The person for whom that was done, as the caller named it; may be empty. */
  readonly onBehalfOf: string;
  /** Excluded; absent: it ends with the license. */
  readonly expiresAt?: Date;
  /** A JSON object as text, as it was given; empty: none. */
  readonly configuration: string;
}

/** How many grants a license can have. A snapshot holds those of all licenses of a customer and travels as one event. */
const MAX_GRANTS = 100;
/** How many bytes the configurations of a license's grants can take together. */
const MAX_CONFIGURATION_BYTES = 32_768;
/** How deep a configuration can nest. The contract bounds its bytes. */
const MAX_CONFIGURATION_DEPTH = 8;

/** What a license or plan version says of features: codes, or `*` alone for all of the product. */
export type FeatureList = readonly string[];

/** Whether a list of features has one. */
export function listsFeature(features: FeatureList, feature: string): boolean {
  return features.includes("*") || features.includes(feature);
}

/** The grants that hold at a time: the clock ends them, whoever tells it. */
export function grantsAt(grants: readonly Grant[], now: Date): readonly Grant[] {
  return grants.filter(({ expiresAt }) => expiresAt === undefined || expiresAt > now);
}

/** Grants without who made them, for those whom that does not concern. */
export function anonymous(grants: readonly Grant[]): readonly Grant[] {
  return grants.map((grant) => ({ ...grant, activatedBy: "", onBehalfOf: "" }));
}

/** The grants that outlive a change of plan: of features that the new terms have anyway, or let be granted. */
export function keptUnder(
  grants: readonly Grant[],
  terms: { readonly features: FeatureList; readonly grantable: FeatureList },
): readonly Grant[] {
  return grants.filter(
    ({ feature }) => listsFeature(terms.features, feature) || listsFeature(terms.grantable, feature),
  );
}

/**
 * A license's grants with one more, or with another expiry and configuration of one that is there; that keeps its
 * beginning.
 *
 * @throws ServiceError INVALID_ARGUMENT for an expiry that has passed; FAILED_PRECONDITION `TOO_MANY_GRANTS`
 */
export function withGrant(
  licenseId: string,
  grants: readonly Grant[],
  wanted: Omit<Grant, "activatedAt">,
  now: Date,
): readonly Grant[] {
  const { feature, expiresAt } = wanted;
  if (expiresAt && expiresAt <= now) {
    throw invalidArgument(
      "expires_at",
      `must be later than now, ${now.toISOString()}; it is ${expiresAt.toISOString()}`,
    );
  }
  const known = grants.find((grant) => grant.feature === feature);
  const after = [...withoutGrant(grants, feature), { ...wanted, activatedAt: known?.activatedAt ?? now }];
  if (after.length > MAX_GRANTS) throw tooMany(licenseId, `${MAX_GRANTS}`, "grants");
  const bytes = after.reduce((sum, { configuration }) => sum + Buffer.byteLength(configuration), 0);
  if (bytes > MAX_CONFIGURATION_BYTES) {
    throw tooMany(licenseId, `${MAX_CONFIGURATION_BYTES} bytes`, "of configurations of its grants");
  }
  return after.sort((one, other) => (one.feature < other.feature ? -1 : 1));
}

/** A license's grants without that of a feature. */
export function withoutGrant(grants: readonly Grant[], feature: string): readonly Grant[] {
  return grants.filter((grant) => grant.feature !== feature);
}

/**
 * Refuses a configuration that is no JSON object, or nests too deep for those who read it.
 *
 * @throws ServiceError INVALID_ARGUMENT that names the field
 */
export function checkConfiguration(text: string): void {
  if (text === "") return;
  if (!isJsonObject(text)) {
    throw invalidArgument("configuration", 'must be a JSON object such as {"max_orders": 5}, or empty');
  }
  if (depthOf(text) > MAX_CONFIGURATION_DEPTH) {
    throw invalidArgument("configuration", `must nest at most ${MAX_CONFIGURATION_DEPTH} levels of objects and lists`);
  }
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    // Whatever is wrong with it, the caller is told what would be right.
    return false;
  }
}

/** How deep a text of JSON nests: in the text itself, as of a key that is there twice a parser shows only the last. */
function depthOf(json: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]]/g)) {
    if (token === "{" || token === "[") deepest = Math.max(deepest, ++depth);
    else if (token === "}" || token === "]") depth -= 1;
  }
  return deepest;
}

function tooMany(licenseId: string, maximum: string, what: string) {
  const message = `License ${licenseId} would have more than ${maximum} ${what}, the most possible.`;
  return failure("TOO_MANY_GRANTS", message, { maximum });
}
