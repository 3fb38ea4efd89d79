import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Change, createChanges } from "./changes.ts";

const customer = (name: string, tenant = "tradsys"): Change => ({ tenant, kind: "customer", name });
const everyone = undefined;
const bootMs = 1_000;

function begun(maxChanges = 8) {
  const changes = createChanges(2, maxChanges);
  changes.begin(bootMs);
  return changes;
}

describe("what has changed", () => {
  test("is each customer and product of the tenant once, of the customers those that are wanted", () => {
    const changes = begun();
    for (const name of ["a", "b", "a"]) changes.note(customer(name));
    changes.note(customer("c", "rankmath"));
    changes.note({ tenant: "tradsys", kind: "product", name: "trading" });
    const found = changes.read(0, "tradsys", new Set(["a", "c"]), 10);
    expect(found).toEqual({ next: 5, customers: new Set(["a"]), products: new Set(["trading"]) });
  });

  test("comes in parts, each going on where the one before ended", () => {
    const changes = begun();
    for (const name of ["a", "b", "c"]) changes.note(customer(name));
    const first = changes.read(0, "tradsys", everyone, 2);
    expect(first).toMatchObject({ next: 2, customers: new Set(["a", "b"]) });
    expect(changes.read(2, "tradsys", everyone, 2)).toMatchObject({ next: 3, customers: new Set(["c"]) });
  });

  test("is remembered up to a number of changes; whoever is further behind is told that it is not", () => {
    const changes = begun(3);
    for (const name of ["a", "b", "c", "d"]) changes.note(customer(name));
    expect(changes.read(0, "tradsys", everyone, 10)).toBeUndefined();
    expect(changes.read(1, "tradsys", everyone, 10)?.customers).toEqual(new Set(["b", "c", "d"]));
  });
});

test("whoever wants a few finds, from any place on, what whoever wants all finds of them", () => {
  const names = ["a", "b", "c", "d"];
  const anyChange = fc.record<Change>({
    tenant: fc.constantFrom("tradsys", "rankmath"),
    kind: fc.constantFrom("customer", "customer", "product"),
    name: fc.constantFrom(...names),
  });
  const anyWanted = fc.uniqueArray(fc.constantFrom(...names), { minLength: 1 });
  fc.assert(
    fc.property(fc.array(anyChange, { maxLength: 40 }), fc.nat(40), anyWanted, (all, from, names) => {
      const changes = begun();
      for (const change of all) changes.note(change);
      const wanted = new Set(names);
      const ofAll = changes.read(from, "tradsys", everyone, 100);
      const expected = ofAll && {
        ...ofAll,
        customers: new Set([...ofAll.customers].filter((name) => wanted.has(name))),
      };
      expect(changes.read(from, "tradsys", wanted, 100)).toEqual(expected);
    }),
  );
});

describe("the place to go on from", () => {
  const told = (changes: ReturnType<typeof begun>, asOfMs: number): string[] | undefined => {
    const place = changes.since(asOfMs);
    if (place === undefined) return undefined;
    return [...(changes.read(place, "tradsys", everyone, 10)?.customers ?? [])];
  };

  test("lies before everything that was not certainly told before the time", () => {
    const changes = begun();
    changes.note(customer("a"));
    changes.heard(0, 2_000);
    changes.heard(1, 2_000);
    changes.note(customer("b"));
    changes.heard(0, 3_000);
    changes.note(customer("c"));
    changes.heard(1, 3_000);
    // Whoever was told all before 3,000 may know b, which lies before a heartbeat of 3,000; that is not certain.
    expect(told(changes, 3_000)).toEqual(["b", "c"]);
    expect(told(changes, 2_500)).toEqual(["b", "c"]);
    expect(told(changes, 2_000)).toEqual(["a", "b", "c"]);
    // In the first partition nothing is certain behind b, whatever the second one has brought.
    expect(told(changes, 3_001)).toEqual(["c"]);
  });

  test("is not moved by a heartbeat that comes late", () => {
    const changes = begun();
    for (const partition of [0, 1]) changes.heard(partition, 3_000);
    changes.note(customer("a"));
    for (const partition of [0, 1]) changes.heard(partition, 2_000);
    expect(told(changes, 2_500)).toEqual(["a"]);
    expect(told(changes, 3_000)).toEqual(["a"]);
  });

  test("is not known from before the beginning, nor where changes are forgotten", () => {
    const changes = begun(2);
    expect(changes.since(bootMs)).toBeUndefined();
    expect(changes.since(bootMs + 1)).toBe(0);
    for (const name of ["a", "b", "c"]) changes.note(customer(name));
    expect(changes.since(bootMs + 1)).toBeUndefined();
    for (const partition of [0, 1]) changes.heard(partition, 2_000);
    expect(told(changes, 2_001)).toEqual([]);
  });
});
