import type { Transport } from "@connectrpc/connect";

/** What any caller may have of a unary method at most, in milliseconds. */
export const PATIENT_MS = 5_000;

/**
 * A transport whose unary calls have {@link PATIENT_MS} where they say nothing: methods that answer at once have short
 * deadlines of their own, which are no measure on a machine that is busy with other suites.
 */
export function patient<T extends Transport>(transport: T): T {
  return {
    ...transport,
    unary: (method, signal, timeoutMs = PATIENT_MS, ...rest) => transport.unary(method, signal, timeoutMs, ...rest),
  };
}
