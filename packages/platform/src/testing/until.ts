import { setTimeout as delay } from "node:timers/promises";

/**
 * Waits until `check` holds, looking every few milliseconds. The limit costs nothing but the time of a failure, so it is
 * generous: how soon something happens on a busy machine is no test's subject.
 *
 * @param what is missing, for the message of the failure.
 */
export async function until(
  what: string,
  check: () => boolean | Promise<boolean>,
  options: { readonly timeoutMs?: number } = {},
): Promise<void> {
  const { timeoutMs = 120_000 } = options;
  const giveUpAt = performance.now() + timeoutMs;
  while (!(await check())) {
    if (performance.now() > giveUpAt) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await delay(5);
  }
}
