import type { Snapshot } from "@licet/decide/entitlement";
import { createLicensePacker } from "@licet/decide/packed/licenses";
import { type Codec, createPackedMap } from "@licet/decide/packed/packed-map";
import type { ReplicaStore } from "@licet/platform/replica-store";

/** How many customers' snapshots are kept as objects too, those asked about last; up to twice as many are. */
const MAX_MADE = 16_384;

/** Where facts came from. */
export type Source = "MEMORY" | "REDIS" | "LICENSING";

/** A snapshot in memory. */
export interface Entry {
  readonly version: bigint;
  readonly snapshot: Snapshot;
  /** Who told it, or has confirmed it since. */
  readonly source: Source;
  /** When licensing told or confirmed it, by its clock in epoch milliseconds; 0: only events did. */
  readonly readAtMs: number;
  /** From when on it is to be confirmed again, in whole seconds of the steady clock. */
  readonly dueAtS: number;
}

/** A tenant's id holds no slash, so no two customers share a key. */
export function toKey(tenant: string, customerId: string): string {
  return `${tenant}/${customerId}`;
}

/** The customer that a key names. */
export function splitKey(key: string): { tenant: string; customerId: string } {
  const slash = key.indexOf("/");
  return { tenant: key.slice(0, slash), customerId: key.slice(slash + 1) };
}

/**
 * Keeps entries in few bytes, outside of the garbage collector's sight: what licenses share with others of their plan
 * once for all, the rest packed. The snapshot of a customer who is asked about often is the same object until it changes.
 */
export function createSnapshotStore(maxMade = MAX_MADE): ReplicaStore<Entry> {
  return createPackedMap(createEntryCodec(), maxMade);
}

// Their places are what is written: none may move.
const sources: readonly Source[] = ["MEMORY", "REDIS", "LICENSING"];
const SOURCE_MASK = 3;
const HAS_READ_AT = 1 << 2;

function createEntryCodec(): Codec<Entry> {
  const licenses = createLicensePacker();
  return {
    write({ version, snapshot, source, readAtMs, dueAtS }, to) {
      // First: it is all that is needed when the rest goes.
      licenses.write(snapshot.licenses, to);
      to.byte(sources.indexOf(source) | (readAtMs === 0 ? 0 : HAS_READ_AT));
      to.int64(version);
      to.uint32(dueAtS);
      if (readAtMs !== 0) to.double(readAtMs);
    },
    read(from, key) {
      const held = licenses.read(from);
      const flags = from.byte();
      const version = from.int64();
      return {
        version,
        snapshot: { ...splitKey(key), version, licenses: held },
        source: sources[flags & SOURCE_MASK] ?? "MEMORY",
        dueAtS: from.uint32(),
        readAtMs: (flags & HAS_READ_AT) === 0 ? 0 : from.double(),
      };
    },
    release: licenses.release,
  };
}
