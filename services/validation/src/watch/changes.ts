/** How many changes are remembered, of all tenants together; about 15 MB. */
const MAX_CHANGES = 65_536;
/** How many heartbeats of a partition are remembered: more than an hour of them. */
const MAX_BEATS = 4_096;

/** A customer or a product of which something has changed; which things, is a matter of the memory that it is noted in. */
export interface Change {
  readonly tenant: string;
  readonly kind: "customer" | "product";
  /** The customer's id, or the product's code. */
  readonly name: string;
}

/** What a reader has found; see {@link Changes.read}. */
export interface FoundChanges {
  /** The place to go on from. */
  readonly next: number;
  /** Each once. */
  readonly customers: ReadonlySet<string>;
  readonly products: ReadonlySet<string>;
}

/**
 * The latest changes in the order in which this instance has applied them, for all watches together: a watch is a place in
 * it, so it costs no memory how many there are, and how much a slow one has not read yet. What has changed is remembered,
 * not to what: whoever comes to read a change reads the present state.
 */
export interface Changes {
  /**
   * Forgets everything: whatever was published before this call, all that was committed until `atMs` among it, is known by
   * other means. Times are those of the database from which the log is filled, in epoch milliseconds.
   */
  begin(atMs: number): void;
  /** Notes a change that a partition of the log has brought and that has been applied. */
  note(change: Change): void;
  /** Notes a heartbeat: a partition has brought everything that was committed before it was issued. */
  heard(partition: number, issuedAtMs: number): void;
  /** The place behind the latest change. */
  readonly end: number;
  /** Whether of what is remembered, most lies before a place: whoever goes on from it need not hurry. */
  isRecent(place: number): boolean;
  /**
   * A place from which on everything is found that was not, or perhaps not, committed before `asOfMs`; undefined when that
   * is not remembered any more.
   */
  since(asOfMs: number): number | undefined;
  /**
   * What has changed from a place on of one tenant's products and customers, of those that are wanted, or of all: until the
   * end, or until so many are found. Undefined when the place is not remembered any more.
   */
  read(from: number, tenant: string, wanted: ReadonlySet<string> | undefined, most: number): FoundChanges | undefined;
}

/** Until here in the log of changes its partition had brought no younger heartbeat than this one. */
interface Beat {
  readonly latestMs: number;
  readonly place: number;
}

/**
 * Creates an empty memory of changes that come in so many partitions.
 *
 * A watch that has gone on at another instance knows only the time of a heartbeat, F: everything before that heartbeat's
 * place in each partition was told to it. Instances read the same partitions in the same order, so of what this one has
 * applied, that watch has everything that lay before the first heartbeat not older than F. This instance may not have
 * heard each heartbeat; but what lay before one that is older than F and than which none was younger is certainly told.
 * A relay that was frozen can send an old time late, hence the maximum.
 */
export function createChanges(partitions: number, maxChanges = MAX_CHANGES): Changes {
  const ring = new Array<Change | undefined>(maxChanges);
  const latest = createLatest();
  let beats: Beat[][] = [];
  let first = 0;
  let end = 0;

  const readAlong = (
    from: number,
    tenant: string,
    wanted: ReadonlySet<string> | undefined,
    most: number,
  ): FoundChanges => {
    const customers = new Set<string>();
    const products = new Set<string>();
    let next = from;
    for (; next < end && customers.size + products.size < most; next++) {
      const change = ring[next % maxChanges];
      if (change?.tenant !== tenant) continue;
      if (change.kind === "product") products.add(change.name);
      else if (wanted === undefined || wanted.has(change.name)) customers.add(change.name);
    }
    return { next, customers, products };
  };

  return {
    begin(atMs) {
      ring.fill(undefined);
      latest.clear();
      first = end;
      beats = Array.from({ length: partitions }, () => [{ latestMs: atMs, place: end }]);
    },
    note(change) {
      const oldest = ring[end % maxChanges];
      if (oldest !== undefined) latest.forget(oldest, end - maxChanges);
      ring[end % maxChanges] = change;
      latest.note(change, end);
      end++;
      first = Math.max(first, end - maxChanges);
    },
    heard(partition, issuedAtMs) {
      const heard = beats[partition];
      const newest = heard?.at(-1);
      if (heard === undefined || newest === undefined) return;
      if (issuedAtMs <= newest.latestMs) heard.pop();
      heard.push({ latestMs: Math.max(newest.latestMs, issuedAtMs), place: end });
      // Half at a time: shifting one by one would move the rest each time.
      if (heard.length > 2 * MAX_BEATS) heard.splice(0, MAX_BEATS);
    },
    get end() {
      return end;
    },
    isRecent: (place) => place >= first && end - place <= maxChanges / 4,
    since(asOfMs) {
      let place = end;
      for (const heard of beats) {
        const told = heard.findLast(({ latestMs }) => latestMs < asOfMs);
        if (told === undefined) return undefined;
        place = Math.min(place, told.place);
      }
      return beats.length > 0 && place >= first ? place : undefined;
    },
    read(from, tenant, wanted, most) {
      if (from < first) return undefined;
      const places = latest.of(tenant);
      if (places === undefined || places.end <= from) return { next: end, customers: none, products: none };
      if (wanted === undefined || wanted.size > Math.min(most, end - from))
        return readAlong(from, tenant, wanted, most);
      // Whoever wants few does not look at what happens to all others: ten thousand do this each second.
      return {
        next: end,
        customers: changedSince(from, wanted, places.customer),
        products: changedSince(from, undefined, places.product),
      };
    },
  };
}

const none: ReadonlySet<string> = new Set();

/** Where the latest change lies of each customer and product of a tenant, as far as it is remembered. */
interface LatestPlaces {
  /** Behind the latest of all. */
  end: number;
  readonly customer: Map<string, number>;
  readonly product: Map<string, number>;
}

function createLatest() {
  const tenants = new Map<string, LatestPlaces>();
  return {
    of: (tenant: string): LatestPlaces | undefined => tenants.get(tenant),
    note({ tenant, kind, name }: Change, place: number): void {
      const places = tenants.get(tenant) ?? { end: 0, customer: new Map(), product: new Map() };
      places.end = place + 1;
      places[kind].set(name, place);
      tenants.set(tenant, places);
    },
    /** Forgets a change that lay at a place, unless there was a later one of the same. */
    forget({ tenant, kind, name }: Change, place: number): void {
      const places = tenants.get(tenant);
      if (places?.[kind].get(name) !== place) return;
      places[kind].delete(name);
      if (places.customer.size + places.product.size === 0) tenants.delete(tenant);
    },
    clear: () => tenants.clear(),
  };
}

/** Of some names, or of all, those whose latest place is not before `from`. */
function changedSince(
  from: number,
  names: Iterable<string> | undefined,
  places: ReadonlyMap<string, number>,
): ReadonlySet<string> {
  let found: Set<string> | undefined;
  for (const name of names ?? places.keys()) {
    if ((places.get(name) ?? -1) >= from) found = (found ?? new Set()).add(name);
  }
  return found ?? none;
}
