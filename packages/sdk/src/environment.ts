import { type Moment, machineClocks } from "./clock.ts";
import type { LicetError } from "./errors.ts";

/** What a client has from outside; tests have their own. */
export interface Environment {
  /** The machine's two clocks. */
  readonly machine: () => Moment;
  /** Its steady clock alone. */
  readonly steadyMs: () => number;
  readonly random: () => number;
  /** Told what went wrong without consequences for an answer. */
  readonly warn: (error: LicetError) => void;
}

/** The real one: warnings are the process's, with the reason as their code. */
export const processEnvironment: Environment = {
  machine: machineClocks,
  steadyMs: () => performance.now(),
  random: Math.random,
  warn: ({ message, reason }) => process.emitWarning(message, { type: "LicetWarning", code: reason }),
};
