/**
 * Waits for a promise, but no longer than so many milliseconds; what it stands for goes on.
 *
 * @throws what `late` makes, when the time is up first.
 */
export function within<T>(ms: number, promise: Promise<T>, late: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), ms);
    const settled = () => {
      clearTimeout(timer);
      resolve(promise);
    };
    promise.then(settled, settled);
  });
}
