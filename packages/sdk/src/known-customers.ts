import type { Snapshot, Usage } from "@licet/decide/entitlement";
import type { Reader } from "@licet/decide/packed/bytes";
import { createLicensePacker } from "@licet/decide/packed/licenses";
import { type Codec, createPackedMap, type PackedMap } from "@licet/decide/packed/packed-map";
import { readUsageLevels, writeUsageLevels } from "@licet/decide/packed/usage";

/** How many customers are kept as objects too, those asked about last; up to twice as many are. */
const MAX_MADE = 16_384;

/** What a customer has used, as a message has told it. */
export interface KnownUsage extends Usage {
  /** Rises with what is counted. */
  readonly version: bigint;
  /** With which first state, counted from 1, or behind it, it was told; 0: before the first. */
  readonly telling: number;
}

/** What is known of one customer. */
export interface KnownCustomer {
  readonly snapshot: Snapshot;
  readonly usage: KnownUsage | undefined;
}

/**
 * Keeps customers in few bytes, outside of the garbage collector's sight, by their ids: what licenses share with others of
 * their plan once for all, the rest packed.
 */
export function createKnownCustomers(): PackedMap<KnownCustomer> {
  return createPackedMap(createCodec(), MAX_MADE);
}

function createCodec(): Codec<KnownCustomer> {
  const packer = createLicensePacker();
  // An API key is of one tenant, so there is one. It is told by each snapshot, and kept once.
  const tenants: string[] = [];
  const indexOf = (tenant: string): number => {
    const index = tenants.indexOf(tenant);
    return index >= 0 ? index : tenants.push(tenant) - 1;
  };
  return {
    write({ snapshot: { tenant, version, licenses }, usage }, to) {
      // First: it is all that is needed when the rest goes.
      packer.write(licenses, to);
      to.int64(version);
      to.count(2 * indexOf(tenant) + (usage === undefined ? 0 : 1));
      if (usage === undefined) return;
      to.int64(usage.version);
      to.count(usage.telling);
      to.double(usage.asOfMs);
      writeUsageLevels(usage.levels, to);
    },
    read(from, customerId) {
      const licenses = packer.read(from);
      const version = from.int64();
      const head = from.count();
      const tenant = tenants[head >> 1] ?? "";
      return {
        snapshot: { tenant, customerId, version, licenses },
        usage: head % 2 === 0 ? undefined : readUsage(from),
      };
    },
    release: packer.release,
  };
}

function readUsage(from: Reader): KnownUsage {
  return { version: from.int64(), telling: from.count(), asOfMs: from.double(), levels: readUsageLevels(from) };
}
