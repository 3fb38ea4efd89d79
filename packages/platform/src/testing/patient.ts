import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { ServiceError } from "../errors.ts";

/** What any caller may have of a unary method at most, in milliseconds. */
export const PATIENT_MS = 5_000;
/** How often a patient caller asks whose deadline passes, where nothing counts the calls. */
export const ATTEMPTS = 3;

/**
 * A transport whose unary calls have {@link PATIENT_MS} where they say nothing: methods that answer at once have short
 * deadlines of their own, which are no measure on a machine that is busy with other suites.
 *
 * @param attempts how often such a call is made whose deadline passes, as it does on a machine that stands still for seconds.
 * Every method may be repeated with the same request.
 */
export function patient<T extends Transport>(transport: T, attempts = 1): T {
  return {
    ...transport,
    async unary(method, signal, timeoutMs, ...rest) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await transport.unary(method, signal, timeoutMs ?? PATIENT_MS, ...rest);
        } catch (error) {
          if (!isDeadlineExceeded(error) || timeoutMs !== undefined || attempt >= attempts) throw error;
        }
      }
    },
  };
}

/** Whether a call failed because its deadline passed, over one of our transports or one of Connect's. */
export function isDeadlineExceeded(error: unknown): boolean {
  if (error instanceof ServiceError) return error.code === "DEADLINE_EXCEEDED";
  return error instanceof ConnectError && error.code === Code.DeadlineExceeded;
}
