/** A place where one side puts values and waits until the other has taken them: a queue of length one. */
export interface Handoff<T> extends AsyncIterable<T> {
  /** Offers a value; resolves when the reader asks for the one after it. One call at a time. */
  put(value: T): Promise<void>;
  /** Ends the reader's iteration after the last value. */
  end(): void;
  /** Makes the reader's iteration throw after the last value. */
  fail(error: unknown): void;
}

/** Turns "send" into "pull", for libraries that ask for an async iterable. */
export function createHandoff<T>(): Handoff<T> {
  let offer: { value: T; taken: () => void } | undefined;
  let outcome: { error?: unknown } | undefined;
  let wake = () => {};

  const settle = (value: { error?: unknown }) => {
    outcome ??= value;
    wake();
  };

  return {
    put(value) {
      return new Promise((taken) => {
        offer = { value, taken };
        wake();
      });
    },
    end: () => settle({}),
    fail: (error) => settle({ error }),
    async *[Symbol.asyncIterator]() {
      for (;;) {
        if (offer !== undefined) {
          const { value, taken } = offer;
          offer = undefined;
          yield value;
          taken();
        } else if (outcome !== undefined) {
          if ("error" in outcome) throw outcome.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    },
  };
}
