/** Waits for a promise, but no longer than until the signal is aborted; then throws the signal's reason. */
export function unlessAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = () => reject(signal.reason);
    if (signal.aborted) aborted();
    else signal.addEventListener("abort", aborted, { once: true });
    const settled = () => {
      signal.removeEventListener("abort", aborted);
      resolve(promise);
    };
    promise.then(settled, settled);
  });
}
