import { createPublicKey, verify } from "node:crypto";
import type { Grant, License, LicenseStatus, LicenseType, Limit, LimitWindow } from "@licet/decide/entitlement";
import type { JwkSet } from "./licet.ts";

const DAY_MS = 86_400_000;
/** The longest text of a license file, in characters. */
const MAX_CHARACTERS = 256 * 1024;

/** A license, as somebody has signed that it is. */
export interface Statement {
  readonly tenant: string;
  readonly customerId: string;
  readonly license: License;
  /** When it was signed, in epoch milliseconds. */
  readonly issuedAtMs: number;
  /** Until when it is relied on without reserve: the product's offline days are over then. */
  readonly freshUntilMs: number;
  /** From when on it allows nothing: the days of grace are over as well, or the signature's own time is. */
  readonly trueUntilMs: number;
}

/**
 * Reads a signed license (`GetSignedLicense`'s `jws`) or a token key (`PREFIX-<JWS>-<checksum>`): a license for each product
 * that it states. Verified first, and read only then; the algorithm is ours, and of the header only `kid` is used, to choose
 * among the keys given.
 *
 * @throws Error with what is wrong, for whoever has put the file there.
 */
export function readLicenseFile(text: string, { keys }: JwkSet): Statement[] {
  if (text.length > MAX_CHARACTERS) throw new Error(`has ${text.length} characters, more than ${MAX_CHARACTERS}`);
  const { jws, type } = unwrap(text.trim());
  const [header = "", payload = "", signature = ""] = jws.split(".");
  const { alg, typ, kid } = asObject("its header", parseJson("its header", header));
  if (alg !== "EdDSA" || typ !== type) throw new Error(`is not of the type ${type}, signed with EdDSA`);
  const jwk = keys.find((key) => key.kid === kid && key.kty === "OKP" && key.crv === "Ed25519");
  if (jwk === undefined) throw new Error(`is signed by the key ${JSON.stringify(kid)}, which is not among publicKeys`);
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: jwk.x ?? "" }, format: "jwk" });
  if (!verify(null, Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, "base64url"))) {
    throw new Error("has a wrong signature: it was changed, or is not whole");
  }
  return toStatements(new Claims("", asObject("the claims", parseJson("the claims", payload))));
}

/** The JWS in the text, and of which type it has to be. */
function unwrap(text: string): { readonly jws: string; readonly type: string } {
  const [, prefix, token, checksum] = /^([A-Z]{2,8})-([\w-]+\.[\w-]+\.[\w-]+)-([0-9a-f]{8})$/.exec(text) ?? [];
  if (prefix !== undefined && token !== undefined) {
    if (checksum !== crc32(`${prefix}-${token}`))
      throw new Error("is a token key whose checksum is wrong: copy it whole");
    return { jws: canonical(token), type: "licet-key+jwt" };
  }
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) return { jws: canonical(text), type: "licet-license+jwt" };
  throw new Error("is neither a signed license (a JWS) nor a token key (PREFIX-<JWS>-<checksum>)");
}

/** Refuses base64url whose unused last bits are not 0: else several texts would mean the same bytes. */
function canonical(jws: string): string {
  for (const part of jws.split(".")) {
    if (Buffer.from(part, "base64url").toString("base64url") !== part) throw new Error("is not in canonical base64url");
  }
  return jws;
}

/** CRC-32 as of zlib and ISO 3309, of ASCII text, in 8 hex digits; Node's own came with Node 22. */
function crc32(text: string): string {
  let crc = 0xffffffff;
  for (let index = 0; index < text.length; index++) {
    crc ^= text.charCodeAt(index);
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (~crc >>> 0).toString(16).padStart(8, "0");
}

type Json = Readonly<Record<string, unknown>>;

/** Claims of an object, read by name and type; a claim that is not as described in docs/guides/keys.md is named. */
class Claims {
  readonly #path: string;
  readonly #of: Json;

  constructor(path: string, of: Json) {
    this.#path = path;
    this.#of = of;
  }

  text(name: string): string {
    const value = this.#of[name];
    return typeof value === "string" ? value : this.#refuse(name, "a text");
  }

  maybeText(name: string): string | undefined {
    return this.#of[name] == null ? undefined : this.text(name);
  }

  texts(name: string): readonly string[] {
    const value = this.#of[name];
    const isList = Array.isArray(value) && value.every((one) => typeof one === "string");
    return isList ? value : this.#refuse(name, "a list of texts");
  }

  count(name: string): number {
    const value = this.#of[name];
    return typeof value === "number" && value >= 0 ? value : this.#refuse(name, "a number from 0");
  }

  maybeCount(name: string): number | undefined {
    return this.#of[name] == null ? undefined : this.count(name);
  }

  /** Milliseconds of a time in RFC 3339; undefined for null or none. */
  maybeTime(name: string): number | undefined {
    const text = this.maybeText(name);
    if (text === undefined) return undefined;
    const ms = Date.parse(text);
    return Number.isFinite(ms) ? ms : this.#refuse(name, "a time in RFC 3339");
  }

  list(name: string): readonly Claims[] {
    const value = this.#of[name];
    if (!Array.isArray(value)) return this.#refuse(name, "a list");
    return value.map((one, index) => {
      const path = `${this.#path}${name}[${index}]`;
      return new Claims(`${path}.`, asObject(path, one));
    });
  }

  one(name: string): Claims {
    return new Claims(`${this.#path}${name}.`, asObject(`${this.#path}${name}`, this.#of[name]));
  }

  has(name: string): boolean {
    return this.#of[name] != null;
  }

  /** The word that the claim says in small letters; `fallback` for one that only a newer Licet has. */
  oneOf<T extends string>(name: string, words: readonly T[], fallback: T): T {
    const text = this.text(name);
    return words.find((word) => word.toLowerCase() === text) ?? fallback;
  }

  #refuse(name: string, expected: string): never {
    throw new Error(`has the claim ${this.#path}${name}, which is not ${expected}`);
  }
}

function toStatements(claims: Claims): Statement[] {
  const issuedAtMs = claims.count("iat") * 1_000;
  const expiresAtMs = (claims.maybeCount("exp") ?? Number.POSITIVE_INFINITY) * 1_000;
  const licenses = claims.has("license") ? [claims.one("license")] : claims.list("licenses");
  const audiences = claims.has("license") ? [claims.text("aud")] : claims.texts("aud");
  return licenses.map((claim, index) => {
    const offlineUntilMs = issuedAtMs + claim.count("offline_days") * DAY_MS;
    return {
      tenant: audiences[index]?.split("/")[0] ?? "",
      customerId: claims.text("sub"),
      license: toLicense(claim),
      issuedAtMs,
      freshUntilMs: Math.min(offlineUntilMs, expiresAtMs),
      trueUntilMs: Math.min(offlineUntilMs + claim.count("grace_days") * DAY_MS, expiresAtMs),
    };
  });
}

/** Statuses that follow from the times, or say that nobody decided anything. */
const undecided: readonly LicenseStatus[] = ["PENDING", "ACTIVE", "GRACE", "EXPIRED"];
const statuses: readonly LicenseStatus[] = [...undecided, "PAST_DUE", "SUSPENDED", "CANCELLED", "REVOKED"];
const licenseTypes: readonly LicenseType[] = ["TRIAL", "STANDARD", "ENTERPRISE", "CUSTOM"];
const windows: readonly LimitWindow[] = ["GAUGE", "PER_SECOND", "PER_DAY", "PER_MONTH", "LIFETIME"];

function toLicense(claim: Claims): License {
  return {
    id: claim.text("license_id"),
    type: claim.oneOf("type", licenseTypes, "CUSTOM"),
    product: claim.text("product"),
    plan: claim.maybeText("plan"),
    planVersion: claim.maybeCount("plan_version") ?? 0,
    status: statusOf(claim),
    features: new Set(claim.texts("features")),
    grants: new Map(claim.list("grants").map(toGrant)),
    limits: claim.list("limits").map(toLimit),
    addOns: [],
    validFromMs: claim.maybeTime("valid_from") ?? 0,
    ...endOf(claim),
    endedAtMs: undefined,
  };
}

/** The stored status; a token key does not tell it, and was issued for a license in force. */
function statusOf(claim: Claims): LicenseStatus {
  if (!claim.has("status")) return "ACTIVE";
  // A status that only a newer Licet knows must not allow anything.
  const status = claim.oneOf("status", statuses, "SUSPENDED");
  return undecided.includes(status) ? "ACTIVE" : status;
}

/** When it ends. Where it permits nothing before its grace is over, a cancellation or billing's grace ends it earlier. */
function endOf(claim: Claims): Pick<License, "validUntilMs" | "graceDays"> {
  const graceDays = claim.count("grace_days");
  const validUntilMs = claim.maybeTime("valid_until");
  const endsAtMs = claim.maybeTime("ends_at");
  if (endsAtMs === undefined) return { validUntilMs, graceDays };
  if (validUntilMs === undefined || endsAtMs <= validUntilMs) return { validUntilMs: endsAtMs, graceDays: 0 };
  return { validUntilMs, graceDays: Math.min(graceDays, (endsAtMs - validUntilMs) / DAY_MS) };
}

function toGrant(claim: Claims): [string, Grant] {
  const configuration = claim.maybeText("configuration") ?? "";
  return [claim.text("feature"), { expiresAtMs: claim.maybeTime("expires_at"), configuration }];
}

function toLimit(claim: Claims): Limit {
  const maximum = claim.maybeText("maximum");
  return {
    metric: claim.text("metric"),
    maximum: maximum === undefined ? undefined : BigInt(maximum),
    window: claim.oneOf("window", windows, "GAUGE"),
    enforcement: claim.oneOf("enforcement", ["HARD", "SOFT"], "HARD"),
  };
}

function parseJson(what: string, base64url: string): unknown {
  try {
    return JSON.parse(Buffer.from(base64url, "base64url").toString());
  } catch {
    throw new Error(`${what} can't be read: it is no JSON`);
  }
}

function asObject(what: string, value: unknown): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw new Error(`${what} is no object`);
}
