/** How many calls to other services one call of ours has under way at most. */
const MAX_PARALLEL = 8;

/** Maps items by calls to another service, a few at a time; the results are in the items' order. */
export async function inParallel<T, R>(items: readonly T[], ask: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let from = 0; from < items.length; from += MAX_PARALLEL) {
    results.push(...(await Promise.all(items.slice(from, from + MAX_PARALLEL).map(ask))));
  }
  return results;
}
