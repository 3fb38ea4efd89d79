/** A queue of fixed room, first in, first out. */
export interface Ring<T> {
  /** How many wait. */
  readonly size: number;
  /** Takes an item; false: there is no room, and nothing has changed. */
  push(item: T): boolean;
  /** Removes and returns the oldest item; undefined: there is none. */
  shift(): T | undefined;
}

/** Creates an empty ring. @param capacity how many items it has room for; rounded up to a power of two. */
export function createRing<T>(capacity: number): Ring<T> {
  const room = 2 ** Math.ceil(Math.log2(capacity));
  const mask = room - 1;
  // Filled at once: an array that grows would make a caller pay for its copy.
  const items = new Array<T | undefined>(room).fill(undefined);
  let first = 0;
  let size = 0;
  return {
    get size() {
      return size;
    },
    push(item) {
      if (size === room) return false;
      items[(first + size) & mask] = item;
      size += 1;
      return true;
    },
    shift() {
      const item = items[first];
      if (size === 0) return undefined;
      items[first] = undefined;
      first = (first + 1) & mask;
      size -= 1;
      return item;
    },
  };
}
