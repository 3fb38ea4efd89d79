import type { Logger } from "pino";

/** Closes what a process opened, in the reverse of the order of opening. */
export interface Lifecycle {
  /**
   * Registers how to close something that was just opened. `name` appears in
   * the log. Once the shutdown has begun, nothing may be opened any more.
   */
  defer(name: string, stop: () => Promise<void>): void;
  /**
   * Closes everything, last in first out, one after the other. A step that
   * fails is logged and the rest goes on, so this never rejects. Further calls
   * wait for the first one.
   */
  shutdown(): Promise<void>;
  /**
   * Ends the process with exit code 1 when it is still there after `ms`
   * milliseconds, and names the step it was stuck in. The timer itself keeps
   * no process alive. A blocked event loop also blocks the timer: that case
   * belongs to the supervisor's liveness probe.
   */
  watchdog(ms: number): void;
}

interface Step {
  readonly name: string;
  readonly stop: () => Promise<void>;
}

/** Creates an empty lifecycle; see {@link Lifecycle}. */
export function createLifecycle(options: { logger: Logger }): Lifecycle {
  const { logger } = options;
  const steps: Step[] = [];
  let running: Promise<void> | undefined;
  let closing = "nothing yet";

  const closeAll = async (): Promise<void> => {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
      closing = step.name;
      try {
        await step.stop();
      } catch (error) {
        logger.error({ err: error, step: step.name }, "closing failed; going on with the rest");
      }
    }
    closing = "nothing: every step is done, something else keeps the process alive";
  };

  return {
    defer(name, stop) {
      if (running !== undefined) {
        throw new Error(`the shutdown has begun: "${name}" can no longer be registered`);
      }
      steps.push({ name, stop });
    },
    shutdown() {
      running ??= closeAll();
      return running;
    },
    watchdog(ms) {
      setTimeout(() => {
        logger.fatal({ step: closing, limitMs: ms }, "the shutdown is stuck; ending the process");
        process.exit(1);
      }, ms).unref();
    },
  };
}
