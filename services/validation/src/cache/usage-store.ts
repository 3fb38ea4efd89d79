import type { UsageLevels } from "@licet/decide/entitlement";
import { type Codec, createPackedMap } from "@licet/decide/packed/packed-map";
import { readUsageLevels, writeUsageLevels } from "@licet/decide/packed/usage";
import type { ReplicaStore } from "@licet/platform/replica-store";

/** What a customer has used, as usage metering told it. */
export interface KnownUsage {
  /** Rises with what is counted. */
  readonly version: bigint;
  readonly levels: UsageLevels;
}

/** Of how many customers it is kept as objects too, those asked about last; up to twice as many are. */
const MAX_MADE = 16_384;

/** Keeps what customers have used in few bytes, as the snapshots are kept. */
export function createUsageStore(maxMade = MAX_MADE): ReplicaStore<KnownUsage> {
  return createPackedMap(codec, maxMade);
}

const codec: Codec<KnownUsage> = {
  write({ version, levels }, to) {
    to.int64(version);
    writeUsageLevels(levels, to);
  },
  read: (from) => ({ version: from.int64(), levels: readUsageLevels(from) }),
  release: () => undefined,
};
