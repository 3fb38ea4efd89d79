/** Into slots of about this length a period is divided, in milliseconds. */
const SLOT_MS = 20;
/** After a standstill of the process so many members are called at once, and those of one slot more. */
const MAX_AT_ONCE = 500;

/** Tells many, each once in a period, that its time has come. */
export interface Pulse {
  /** Has `beat` called once in each period from now on; returns what ends that. */
  join(beat: () => void): () => void;
}

/**
 * Creates a pulse without members. They are spread evenly over the period whenever they come, and stay where they are: with
 * a timer of its own for each, ten thousand that were late together once, for a collection of garbage or because they came
 * back together after a restart, would be due together ever after, and others would wait for all of them.
 */
export function createPulse(periodMs: number): Pulse {
  const slots = Array.from({ length: Math.max(1, Math.round(periodMs / SLOT_MS)) }, () => new Set<() => void>());
  const slotMs = periodMs / slots.length;
  let members = 0;
  let timer: NodeJS.Timeout | undefined;
  let current = 0;
  let dueAtMs = 0;

  const tick = (): void => {
    const nowMs = performance.now();
    // Whoever was missed in a whole period has missed it.
    dueAtMs = Math.max(dueAtMs, nowMs - periodMs);
    for (let called = 0; called < MAX_AT_ONCE && dueAtMs <= nowMs; ) {
      const slot = slots[current] ?? new Set();
      for (const beat of slot) beat();
      called += slot.size;
      current = (current + 1) % slots.length;
      dueAtMs += slotMs;
    }
  };

  return {
    join(beat) {
      const slot = slots.reduce((emptiest, other) => (other.size < emptiest.size ? other : emptiest));
      slot.add(beat);
      members += 1;
      if (timer === undefined) {
        dueAtMs = performance.now() + slotMs;
        timer = setInterval(tick, slotMs);
      }
      return () => {
        if (!slot.delete(beat)) return;
        members -= 1;
        if (members > 0) return;
        clearInterval(timer);
        timer = undefined;
      };
    },
  };
}
