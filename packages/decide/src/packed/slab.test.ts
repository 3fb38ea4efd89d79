import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { createSlab, type Slab } from "./slab.ts";

function contentOf(slab: Slab, place: number, length: number): number[] {
  const { bytes, offset } = slab.locate(place);
  return [...bytes.subarray(offset, offset + length)];
}

describe("a slab", () => {
  test("keeps every run apart from all others, whatever comes and goes", () => {
    // Often of few sizes, so that many lie in one buffer, and one takes the slot that another has left.
    const anyLength = fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 41, max: 56 }) },
      { weight: 1, arbitrary: fc.nat(5_000) },
      { weight: 1, arbitrary: fc.integer({ min: 60_000, max: 70_000 }) },
    );
    const anySteps = fc.array(
      fc.record({ length: anyLength, byte: fc.nat(255), frees: fc.array(fc.nat(50), { maxLength: 2 }) }),
      {
        maxLength: 60,
        size: "max",
      },
    );
    const property = fc.property(anySteps, (steps) => {
      const slab = createSlab();
      const held: { place: number; content: Uint8Array }[] = [];
      for (const { length, byte, frees } of steps) {
        const content = new Uint8Array(length).fill(byte);
        const place = slab.put(content, length);
        expect(Number.isSafeInteger(place) && place >= 0 && place < 2 ** 31).toBe(true);
        held.push({ place, content });
        for (const index of frees) {
          const [gone] = held.length > 1 ? held.splice(index % held.length, 1) : [];
          if (gone !== undefined) slab.free(gone.place);
        }
        for (const { place, content } of held) {
          const { bytes, offset } = slab.locate(place);
          expect(Buffer.compare(bytes.subarray(offset, offset + content.length), content)).toBe(0);
        }
      }
      for (const { place } of held) slab.free(place);
      expect(slab.allocatedBytes).toBe(0);
    });
    fc.assert(property, { numRuns: 50 });
  });

  test.each([
    [48, 48],
    [49, 56],
    [129, 144],
    [1_000, 1_024],
    [4_000, 4_096],
  ])("of %i bytes each it allocates %i, and takes again what was freed", (length, slot) => {
    const slab = createSlab();
    const count = 10_000;
    const fill = (): number[] => Array.from({ length: count }, () => slab.put(new Uint8Array(length), length));
    const places = fill();
    const allocated = slab.allocatedBytes;
    expect(allocated).toBeGreaterThanOrEqual(count * slot);
    expect(allocated).toBeLessThan(count * slot + 2 * 65_536);
    for (const place of places.filter((_, index) => index % 2 === 0)) slab.free(place);
    for (let index = 0; index < count / 2; index++) slab.put(new Uint8Array(length), length);
    expect(slab.allocatedBytes).toBe(allocated);
  });

  test("a run keeps its content until it is freed", () => {
    const slab = createSlab();
    const place = slab.put(Uint8Array.of(1, 2, 3), 3);
    slab.put(Uint8Array.of(4, 5, 6), 3);
    expect(contentOf(slab, place, 3)).toEqual([1, 2, 3]);
    slab.free(place);
    const only = createSlab();
    const gone = only.put(Uint8Array.of(1), 1);
    only.free(gone);
    expect(() => only.locate(gone)).toThrow(RangeError);
  });
});
