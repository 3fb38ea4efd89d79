import {
  create,
  createRegistry,
  type DescMessage,
  equals,
  fromBinary,
  type MessageShape,
  toJsonString,
} from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Enforcement, LimitWindow, ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  CheckFeaturesRequestSchema,
  CheckFeaturesResponseSchema,
  ValidateFeatureRequestSchema,
  ValidateFeatureResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Snapshot, Usage } from "@licet/decide/entitlement";
import { toCatalog, toSnapshot } from "@licet/decide/from-wire";
import type { Call } from "@licet/platform/rpc/call";
import { createCatalogCache } from "@licet/validation/cache/catalogs";
import type { Context } from "@licet/validation/context";
import { checkFeatures } from "@licet/validation/rpc/check-features";
import { createHotPath } from "@licet/validation/rpc/hot-path";
import { validateFeature } from "@licet/validation/rpc/validate-feature";
import { below, pick } from "./attack.ts";

/** Who is asked about, the last one unknown. */
export const customers = ["cairo-capital", "nile-brokers", "lapsed-fund", "two-licenses", "nobody"] as const;
/** What is asked about. */
export const features = ["egx_access", "basic_trading", "adx_access", "unknown_feature", "a"] as const;

const tenantId = "tradsys";
const startMs = Date.UTC(2030, 0, 1);
const dayMs = 86_400_000;
const fenceMs = 30_000;

/** Fields that nobody knows count, too. */
export const exactly = { unknown: true, registry: createRegistry() };

/** Customers that change, as the hot path and the handlers see them. */
export interface World {
  /** Changes a customer and the clocks, sometimes the catalogue. */
  change(): void;
  /** What the hot path answers to a request in another way than the handler; undefined: nothing. It notes what it answers. */
  compareReplies(schema: DescMessage, bytes: Buffer, note: (name: string) => void): Promise<string | undefined>;
}

/** Starts with no customer. */
export function createWorld(random: () => number): World {
  const snapshots = new Map<string, Snapshot>();
  const usages = new Map<string, Usage>();
  const catalogs = createCatalogCache();
  const clock = { ms: startMs, stalenessMs: 0 };
  let version = 1n;
  const found = (customerId: string) => ({
    snapshot: snapshots.get(customerId),
    source: "MEMORY" as const,
    stalenessMs: clock.stalenessMs,
  });
  const nothing = (): void => {};
  const ctx = {
    snapshots: {
      find: async (_tenant: string, customerId: string) => found(customerId),
      findNow: (_tenant: string, customerId: string) => (clock.stalenessMs < fenceMs ? found(customerId) : undefined),
    },
    catalogs,
    usage: { of: (_tenant: string, customerId: string) => usages.get(customerId) },
    fenceMs,
    now: () => clock.ms,
    metrics: {
      decided: nothing,
      checked: nothing,
      answered: nothing,
      took: nothing,
      failed: nothing,
      lookedUp: nothing,
    },
    // What the handlers look at, and no more.
  } as unknown as Context;
  return {
    change() {
      version += 1n;
      clock.ms += pick(random, [0, 1, dayMs, -dayMs, 5 * dayMs]);
      clock.stalenessMs = pick(random, [0, 0.5, 127, 128, 20_000, 40_000]);
      const customerId = pick(random, customers.slice(0, -1));
      const licenses = Array.from({ length: below(random, 3) }, () => license(random, clock.ms));
      const snapshot = create(EntitlementSnapshotSchema, { tenantId, customerId, version, licenses });
      snapshots.set(customerId, toSnapshot(snapshot));
      usages.set(customerId, usage(random, clock.ms, usages.get(customerId)));
      if (random() < 0.2) catalogs.apply(toCatalog(catalog(random, version)));
    },
    compareReplies: createComparison(ctx),
  };
}

function license(random: () => number, nowMs: number) {
  const at = () => timestampFromMs(nowMs + (below(random, 20) - 10) * dayMs);
  const sometimes = <T>(value: () => T): T | undefined => (random() < 0.3 ? value() : undefined);
  return {
    licenseId: `0197a000-0000-7000-8000-00000000000${below(random, 10)}`,
    product: pick(random, ["trading", "research"]),
    plan: pick(random, ["", "standard"]),
    status: below(random, 9) as LicenseStatus,
    features: pick(random, [["*"], ["basic_trading"], ["egx_access", "a"], []]),
    limits:
      sometimes(() => [
        { metric: "orders", maximum: 5n, window: LimitWindow.PER_DAY, enforcement: below(random, 3) as Enforcement },
      ]) ?? [],
    grants: sometimes(() => [{ feature: pick(random, features), expiresAt: at(), configuration: "{}" }]) ?? [],
    validFrom: timestampFromMs(nowMs - below(random, 10) * dayMs),
    validUntil: sometimes(at),
    graceDays: below(random, 5),
    cancelsAt: sometimes(at),
    unpaidGraceUntil: sometimes(at),
  };
}

/** What was used; sometimes nothing more than before, and only its age is another one. */
function usage(random: () => number, nowMs: number, before: Usage | undefined): Usage {
  const asOfMs = nowMs - below(random, 1_000);
  if (before !== undefined && random() < 0.3) return { levels: before.levels, asOfMs };
  const windowStartMs = Math.floor(nowMs / dayMs) * dayMs;
  const level = { window: "PER_DAY" as const, licenseId: undefined, windowStartMs, used: String(below(random, 8)) };
  return { levels: new Map(random() < 0.7 ? [["orders", [level]]] : []), asOfMs };
}

function catalog(random: () => number, version: bigint) {
  const some = features.slice(0, below(random, features.length));
  return create(ProductCatalogSchema, {
    tenantId,
    product: "trading",
    version,
    features: some.map((feature) => ({ feature, reduceOnly: random() < 0.5 })),
  });
}

function createComparison(ctx: Context): World["compareReplies"] {
  const hotPath = createHotPath(ctx);
  const call = { tenant: tenantId } as Call;
  const compare = async <O extends DescMessage>(
    schema: O,
    reply: Uint8Array,
    handled: Promise<MessageShape<O>>,
  ): Promise<string | undefined> => {
    const prepared = fromBinary(schema, reply);
    const expected = await handled;
    if (equals(schema, prepared, expected, exactly)) return undefined;
    return `answered ${toJsonString(schema, prepared)} in place of ${toJsonString(schema, expected)}`;
  };
  return async ({ typeName }, bytes, note) => {
    if (typeName === ValidateFeatureRequestSchema.typeName) {
      const reply = hotPath.validateFeature(tenantId, bytes);
      if (reply === undefined) return undefined;
      note("prepared ValidateFeatureResponse");
      const handled = validateFeature(ctx, call, fromBinary(ValidateFeatureRequestSchema, bytes));
      return compare(
        ValidateFeatureResponseSchema,
        reply,
        handled.then((init) => create(ValidateFeatureResponseSchema, init)),
      );
    }
    if (typeName === CheckFeaturesRequestSchema.typeName) {
      const reply = hotPath.checkFeatures(tenantId, bytes);
      if (reply === undefined) return undefined;
      note("prepared CheckFeaturesResponse");
      const handled = checkFeatures(ctx, call, fromBinary(CheckFeaturesRequestSchema, bytes));
      return compare(
        CheckFeaturesResponseSchema,
        reply,
        handled.then((init) => create(CheckFeaturesResponseSchema, init)),
      );
    }
    return undefined;
  };
}
