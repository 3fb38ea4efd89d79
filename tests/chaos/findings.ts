/** What was found against one invariant. */
export interface Difference {
  readonly invariant: string;
  readonly count: number;
  readonly examples: readonly string[];
}

/** Collects what contradicts the invariants. */
export interface Findings {
  add(invariant: string, example: string): void;
  list(): Difference[];
}

/** Examples that are kept of each invariant. */
const EXAMPLES = 5;

/** Creates an empty collection. */
export function createFindings(): Findings {
  const found = new Map<string, { count: number; examples: string[] }>();
  return {
    add(invariant, example) {
      const one = found.get(invariant) ?? { count: 0, examples: [] };
      found.set(invariant, one);
      one.count++;
      if (one.examples.length < EXAMPLES) one.examples.push(example);
    },
    list: () => [...found].map(([invariant, { count, examples }]) => ({ invariant, count, examples })),
  };
}
