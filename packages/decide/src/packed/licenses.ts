import type { Grant, License, LicenseStatus } from "../entitlement.ts";
import { isUuid, type Reader, type Writer } from "./bytes.ts";

/** What each license has of its own; all else it shares with the others of its plan. */
type Own =
  | "id"
  | "status"
  | "grants"
  | "validFromMs"
  | "validUntilMs"
  | "endedAtMs"
  | "cancelsAtMs"
  | "unpaidGraceUntilMs";
type Terms = Omit<License, Own>;

/** Writes licenses into few bytes, and makes them again out of these; the terms that several share exist once. */
export interface LicensePacker {
  /** Writes licenses; their terms are kept until as many were released. */
  write(licenses: readonly License[], to: Writer): void;
  /** The licenses as they were written. Those with the same terms share the objects of these. */
  read(from: Reader): readonly License[];
  /** Must be called once for what was written and is gone, at the place where it began. */
  release(from: Reader): void;
  /** How many different terms are kept. */
  readonly distinctTerms: number;
}

// Their places are what is written: none may move.
const statuses: readonly LicenseStatus[] = [
  "PENDING",
  "ACTIVE",
  "PAST_DUE",
  "GRACE",
  "SUSPENDED",
  "EXPIRED",
  "CANCELLED",
  "REVOKED",
];
const STATUS_MASK = 7;
const ID_IS_UUID = 1 << 3;
const HAS_VALID_UNTIL = 1 << 4;
const HAS_ENDED_AT = 1 << 5;
const HAS_CANCELS_AT = 1 << 6;
const HAS_UNPAID_GRACE = 1 << 7;
const HAS_GRANTS = 1 << 8;

const noLicenses: readonly License[] = [];
const noGrants: ReadonlyMap<string, Grant> = new Map();

/** Creates a packer with no terms. */
export function createLicensePacker(): LicensePacker {
  const interner = createInterner();
  return {
    write(licenses, to) {
      to.count(licenses.length);
      // First and together: what is released must be found without reading the rest.
      for (const license of licenses) to.count(interner.acquire(license));
      for (const license of licenses) writeOwn(license, to);
    },
    read(from) {
      const count = from.count();
      if (count === 0) return noLicenses;
      const terms = Array.from({ length: count }, () => interner.at(from.count()));
      return terms.map((shared) => readOwn(shared, from));
    },
    release(from) {
      for (let left = from.count(); left > 0; left--) interner.release(from.count());
    },
    get distinctTerms() {
      return interner.size;
    },
  };
}

function writeOwn(license: License, to: Writer): void {
  const { id, grants, validFromMs, validUntilMs, endedAtMs, cancelsAtMs, unpaidGraceUntilMs } = license;
  const uuid = isUuid(id);
  to.uint16(
    statuses.indexOf(license.status) |
      (uuid ? ID_IS_UUID : 0) |
      (validUntilMs === undefined ? 0 : HAS_VALID_UNTIL) |
      (endedAtMs === undefined ? 0 : HAS_ENDED_AT) |
      (cancelsAtMs === undefined ? 0 : HAS_CANCELS_AT) |
      (unpaidGraceUntilMs === undefined ? 0 : HAS_UNPAID_GRACE) |
      (grants.size === 0 ? 0 : HAS_GRANTS),
  );
  if (uuid) to.uuid(id);
  else to.text(id);
  to.double(validFromMs);
  for (const time of [validUntilMs, endedAtMs, cancelsAtMs, unpaidGraceUntilMs]) {
    if (time !== undefined) to.double(time);
  }
  if (grants.size > 0) writeGrants(grants, to);
}

function readOwn(terms: Terms, from: Reader): License {
  const flags = from.uint16();
  const timeIf = (flag: number): number | undefined => ((flags & flag) === 0 ? undefined : from.double());
  // In the order in which they were written.
  return {
    ...terms,
    status: statuses[flags & STATUS_MASK] ?? "SUSPENDED",
    id: (flags & ID_IS_UUID) === 0 ? from.text() : from.uuid(),
    validFromMs: from.double(),
    validUntilMs: timeIf(HAS_VALID_UNTIL),
    endedAtMs: timeIf(HAS_ENDED_AT),
    cancelsAtMs: timeIf(HAS_CANCELS_AT),
    unpaidGraceUntilMs: timeIf(HAS_UNPAID_GRACE),
    grants: (flags & HAS_GRANTS) === 0 ? noGrants : readGrants(from),
  };
}

function writeGrants(grants: ReadonlyMap<string, Grant>, to: Writer): void {
  to.count(grants.size);
  for (const [feature, { expiresAtMs, configuration }] of grants) {
    to.text(feature);
    to.text(configuration);
    to.byte(expiresAtMs === undefined ? 0 : 1);
    if (expiresAtMs !== undefined) to.double(expiresAtMs);
  }
}

function readGrants(from: Reader): ReadonlyMap<string, Grant> {
  const grants = new Map<string, Grant>();
  for (let left = from.count(); left > 0; left--) {
    const feature = from.text();
    const configuration = from.text();
    grants.set(feature, { configuration, expiresAtMs: from.byte() === 0 ? undefined : from.double() });
  }
  return grants;
}

/** Terms that are in use, and how often. */
interface Shared {
  readonly key: string;
  readonly terms: Terms;
  uses: number;
}

function createInterner() {
  const byKey = new Map<string, number>();
  const shared: (Shared | undefined)[] = [];
  const free: number[] = [];
  const at = (index: number): Shared => {
    const found = shared[index];
    if (found === undefined) throw new RangeError(`terms ${index} were released by the last that used them`);
    return found;
  };
  return {
    at: (index: number): Terms => at(index).terms,
    acquire(license: License): number {
      const key = keyOf(license);
      const known = byKey.get(key);
      if (known !== undefined) {
        at(known).uses++;
        return known;
      }
      const index = free.pop() ?? shared.length;
      shared[index] = { key, terms: termsOf(license), uses: 1 };
      byKey.set(key, index);
      return index;
    },
    release(index: number): void {
      const used = at(index);
      used.uses--;
      if (used.uses > 0) return;
      shared[index] = undefined;
      byKey.delete(used.key);
      free.push(index);
    },
    get size() {
      return byKey.size;
    },
  };
}

/** What of each term tells it from others, as JSON can say it. A new term of a license does not compile without. */
const distinguishing: { readonly [K in keyof Terms]-?: (terms: Terms) => unknown } = {
  type: ({ type }) => type,
  product: ({ product }) => product,
  plan: ({ plan }) => plan ?? null,
  planVersion: ({ planVersion }) => planVersion,
  features: ({ features }) => [...features],
  limits: ({ limits }) =>
    limits.map(({ metric, maximum, window, enforcement }) => [
      metric,
      maximum === undefined ? null : String(maximum),
      window,
      enforcement,
    ]),
  addOns: ({ addOns }) => addOns.map(({ addOn, version, quantity }) => [addOn, version, quantity]),
  graceDays: ({ graceDays }) => graceDays,
};
const distinctions = Object.values(distinguishing);

function keyOf(license: License): string {
  return JSON.stringify(distinctions.map((of) => of(license)));
}

function termsOf(license: License): Terms {
  const { id, status, grants, validFromMs, validUntilMs, endedAtMs, cancelsAtMs, unpaidGraceUntilMs, ...terms } =
    license;
  return terms;
}
