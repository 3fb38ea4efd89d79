import { test } from "@jest/globals";
import fc from "fast-check";

/** A run of a simulation that failed once. */
export interface Regression {
  /** What was wrong, in words that stay true once the code or the generator has changed. */
  readonly about: string;
  readonly seed: number;
  /** The place of the run among those of its seed, as the failure printed it. */
  readonly path: string;
}

/** How a simulation is run. */
export interface SimulationOptions {
  /** Runs with a new seed in CI; `LICET_SIMULATION_FACTOR` multiplies them. */
  readonly runs: number;
  /** Runs that failed once, kept beside the simulation; they come first, each time. */
  readonly regressions?: readonly Regression[];
}

/** How long all runs together may take, before the factor; generous, as how busy the machine is is no simulation's subject. */
const TIMEOUT_MS = 180_000;

type Property<Ts> = fc.IAsyncPropertyWithHooks<Ts> | fc.IPropertyWithHooks<Ts>;

/** A whole number from 1 of the environment; 1 when it is not set. */
function factor(): number {
  const text = process.env.LICET_SIMULATION_FACTOR ?? "1";
  if (!/^[1-9][0-9]{0,4}$/.test(text))
    throw new Error(`LICET_SIMULATION_FACTOR is "${text}", not a whole number from 1`);
  return Number(text);
}

/** The seed that `LICET_SEED` names, a new one when it names none. */
function seed(): number {
  const text = process.env.LICET_SEED ?? String(Math.floor(Math.random() * 2 ** 31));
  if (!/^-?[0-9]{1,10}$/.test(text)) throw new Error(`LICET_SEED is "${text}", not a whole number of 32 bits`);
  return Number(text) | 0;
}

/**
 * A test that plays random courses of events against real code and a model of it: the kept regressions first, then new
 * ones. A failure names its seed, and what to add to the regressions beside the simulation.
 *
 * @param makeProperty makes the property of one course; it is called again for each regression.
 */
export function simulation<Ts>(name: string, options: SimulationOptions, makeProperty: () => Property<Ts>): void {
  const { regressions = [] } = options;
  const times = factor();
  // The rest of the time is for the report: making a failure smaller ends then, and a run too slow fails.
  const limits = { interruptAfterTimeLimit: 0.8 * TIMEOUT_MS * times, markInterruptAsFailure: true };
  test(
    name,
    async () => {
      for (const { about, ...place } of regressions) {
        await play(makeProperty(), { ...limits, ...place, numRuns: 1 }, `a regression is back: ${about}`);
      }
      await play(makeProperty(), { ...limits, seed: seed(), numRuns: options.runs * times }, "");
    },
    TIMEOUT_MS * times,
  );
}

async function play<Ts>(property: Property<Ts>, parameters: fc.Parameters<Ts>, hint: string): Promise<void> {
  const details = await fc.check(property as fc.IAsyncPropertyWithHooks<Ts>, parameters);
  if (!details.failed) return;
  // The first number alone is the run before it was made smaller: commands can't be replayed further than to there.
  const [path] = (details.counterexamplePath ?? "0").split(":");
  const kept = `to keep it: regressions: [{ about: "…", seed: ${details.seed}, path: "${path}" }]`;
  const again = `to run it again: LICET_SEED=${details.seed}`;
  const report = await fc.asyncDefaultReportMessage(details);
  throw new Error([hint, kept, again, report].filter((line) => line !== "").join("\n"), {
    cause: details.errorInstance,
  });
}
