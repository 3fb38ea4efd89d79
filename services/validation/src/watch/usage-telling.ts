import type { UsageCache } from "../cache/usage.ts";
import type { Context } from "../context.ts";
import type { WatchScope } from "./resume-token.ts";
import type { Watch } from "./watches.ts";

/** How far a watcher was told what its customers have used. */
export interface UsageProgress {
  /** Everything before this place in the changes of usage was told. */
  readonly place: number;
  /** Everything accepted before was told, in epoch milliseconds by usage metering's clock; undefined: nobody can tell. */
  readonly asOfMs: number | undefined;
}

/** Tells a watcher what its customers have used. It is a place in what has changed, and holds no queue. */
export interface UsageTelling {
  /**
   * The customers of whom it is to be told now what they have used, as it is then: so many that other changes need not wait
   * long. Undefined: those that {@link anew} gives.
   */
  next(): ReadonlySet<string> | undefined;
  /** So many of all customers, where it is not known which ones have used something. */
  anew(): Promise<Iterable<string>>;
  /** Notes that customers were told, whichever, and what they have used; see {@link vouchable}. */
  told(): void;
  /** Whether there is more to tell already. */
  readonly behind: boolean;
  /** See {@link UsageProgress}; after `told`. */
  readonly asOfMs: number | undefined;
}

/**
 * Begins to tell from where the watcher is. Where that is not known, or not remembered any more, it tells what every customer
 * has used that has used anything: unlike with snapshots nothing is to be forgotten, so the watch need not begin anew.
 */
export function createUsageTelling(
  { usage, watches: { usageChanges, maxAtOnce } }: Pick<Context, "usage" | "watches">,
  watch: Pick<Watch, "readUsage">,
  { tenant, customerIds }: WatchScope,
  from: UsageProgress | undefined,
): UsageTelling {
  let progress = from;
  let anew: { readonly behindIt: UsageProgress; readonly customers: AsyncIterator<string> } | undefined;
  let behind = true;

  return {
    next() {
      // Nothing can be told before usage metering has: what changes until then is not passed over.
      if (usage.stalenessMs() === undefined) {
        behind = false;
        return nobody;
      }
      const found = progress && watch.readUsage(progress.place);
      if (found === undefined) return undefined;
      behind = found.next < usageChanges.end;
      // In the same turn: whatever was accepted before this time has been applied, and was just read.
      const vouchedMs = behind ? undefined : usage.asOfMs();
      progress = { place: found.next, asOfMs: latest(progress?.asOfMs, vouchedMs) };
      return found.customers;
    },
    async anew() {
      progress = undefined;
      behind = true;
      anew ??= {
        behindIt: { place: usageChanges.end, asOfMs: usage.asOfMs() },
        customers: customerIds.length > 0 ? each(customerIds) : usage.customersOf(tenant)[Symbol.asyncIterator](),
      };
      const some = await take(anew.customers, maxAtOnce);
      if (some.length === maxAtOnce) return some;
      progress = anew.behindIt;
      anew = undefined;
      return some;
    },
    told() {
      progress = progress && vouchable(usage, progress);
    },
    get behind() {
      return behind;
    },
    get asOfMs() {
      return progress?.asOfMs;
    },
  };
}

/**
 * How far a watcher was told that has just been told of customers: no further than this instance knows. What it has dropped
 * meanwhile it did not tell, and of a customer who is new to the watcher what another instance has told before was not kept.
 */
export function vouchable(usage: Pick<UsageCache, "asOfMs">, { place, asOfMs }: UsageProgress): UsageProgress {
  const knownMs = usage.asOfMs();
  return { place, asOfMs: asOfMs === undefined || knownMs === undefined ? undefined : Math.min(asOfMs, knownMs) };
}

const nobody: ReadonlySet<string> = new Set();

function latest(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? (a ?? b) : Math.max(a, b);
}

async function* each<T>(values: Iterable<T>): AsyncGenerator<T, void> {
  yield* values;
}

async function take<T>(values: AsyncIterator<T>, most: number): Promise<T[]> {
  const taken: T[] = [];
  while (taken.length < most) {
    const { done, value } = await values.next();
    if (done === true) break;
    taken.push(value);
  }
  return taken;
}
