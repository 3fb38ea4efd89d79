import type { Logger } from "../logging.ts";
import { createCondition } from "./condition.ts";
import { type LogDatabase, readTails, type Tail } from "./postgres-log.ts";

/** Who wants to know where a partition ends. */
export interface TailObserver {
  readonly place: { readonly topic: string; readonly partition: number };
  observe(tail: Tail): void;
}

/** Looks where the partitions end, in one statement for all observers. */
export interface Tails {
  /** Tells an observer about its partition from now on, until the returned function is called. */
  follow(observer: TailObserver): () => void;
  /** Looks at once instead of at the next turn: something was published. */
  look(): void;
  /** Resolves once looking has ended after the signal aborted. */
  readonly ended: Promise<void>;
}

/** Starts to look every `pollMs` milliseconds until `signal` aborts; an unreachable log is logged once and looked for on. */
export function followTails(options: { db: LogDatabase; pollMs: number; signal: AbortSignal; logger: Logger }): Tails {
  const { db, pollMs, signal, logger } = options;
  const observers = new Set<TailObserver>();
  const asked = createCondition();
  let again = false;
  let failing = false;

  const lookOnce = async (): Promise<void> => {
    const topics = new Set([...observers].map(({ place }) => place.topic));
    try {
      const tails = topics.size === 0 ? [] : await readTails(db, [...topics]);
      const byPlace = new Map(tails.map((tail) => [`${tail.topic}/${tail.partition}`, tail]));
      for (const observer of observers) {
        const tail = byPlace.get(`${observer.place.topic}/${observer.place.partition}`);
        if (tail !== undefined) observer.observe(tail);
      }
      failing = false;
    } catch (error) {
      if (!failing) logger.warn({ err: error }, "the event log can't be read; reading goes on when it is back");
      failing = true;
    }
  };

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      again = false;
      await lookOnce();
      if (!again || failing) await asked.wait(AbortSignal.any([signal, AbortSignal.timeout(pollMs)]));
    }
  };

  return {
    follow(observer) {
      observers.add(observer);
      return () => void observers.delete(observer);
    },
    look() {
      again = true;
      asked.notify();
    },
    ended: run(),
  };
}
