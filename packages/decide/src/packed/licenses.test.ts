import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import type { License } from "../entitlement.ts";
import { anyLicense } from "../testing/any-license.ts";
import { Reader, Writer } from "./bytes.ts";
import { createLicensePacker, type LicensePacker } from "./licenses.ts";

function pack(packer: LicensePacker, licenses: readonly License[]) {
  const writer = new Writer();
  packer.write(licenses, writer);
  const bytes = writer.bytes.slice(0, writer.length);
  const reader = (): Reader => {
    const from = new Reader();
    from.begin(bytes, new DataView(bytes.buffer), 0);
    return from;
  };
  return {
    length: bytes.length,
    read: () => packer.read(reader()),
    release: () => packer.release(reader()),
  };
}

const ordinary: License = {
  id: "0197a000-0000-7000-8000-000000000001",
  type: "STANDARD",
  product: "trading",
  plan: "standard",
  planVersion: 1,
  status: "ACTIVE",
  features: new Set(["basic_trading", "advanced_orders"]),
  grants: new Map(),
  limits: [{ metric: "users", maximum: 50n, window: "GAUGE", enforcement: "HARD" }],
  addOns: [],
  validFromMs: 1_767_225_600_000,
  validUntilMs: 1_798_761_600_000,
  graceDays: 7,
  endedAtMs: undefined,
  cancelsAtMs: undefined,
  unpaidGraceUntilMs: undefined,
};

describe("packed licenses", () => {
  test("come out as they went in, down to the order, and leave nothing once they are released", () => {
    const property = fc.property(fc.array(fc.array(anyLicense, { maxLength: 4 }), { maxLength: 4 }), (customers) => {
      const packer = createLicensePacker();
      const packed = customers.map((licenses) => pack(packer, licenses));
      for (const [index, licenses] of customers.entries()) {
        const read = packed[index]?.read();
        expect(read).toEqual(licenses);
        // Equality of sets and maps knows no order, sentences do.
        expect(read?.map(({ features, grants }) => [[...features], [...grants]])).toEqual(
          licenses.map(({ features, grants }) => [[...features], [...grants]]),
        );
      }
      for (const { release } of packed) release();
      expect(packer.distinctTerms).toBe(0);
    });
    fc.assert(property, { numRuns: 100 });
  });

  test("two that differ in any one field come out different", () => {
    const anyPair = fc
      .tuple(anyLicense, anyLicense, fc.constantFrom(...(Object.keys(ordinary) as (keyof License)[])))
      .map(([one, other, field]): License[] => [one, { ...one, [field]: other[field] }]);
    const property = fc.property(anyPair, (pair) => {
      expect(pack(createLicensePacker(), pair).read()).toEqual(pair);
    });
    fc.assert(property, { numRuns: 1_000 });
  });

  test("share what their plan gives them, until the last one is gone", () => {
    const packer = createLicensePacker();
    const one = pack(packer, [ordinary]);
    const two = pack(packer, [{ ...ordinary, id: "0197a000-0000-7000-8000-000000000002", status: "SUSPENDED" }]);
    const newer = pack(packer, [{ ...ordinary, planVersion: 2, features: new Set(["basic_trading"]) }]);
    expect(packer.distinctTerms).toBe(2);
    expect(one.read()[0]?.features).toBe(two.read()[0]?.features);
    one.release();
    newer.release();
    expect(packer.distinctTerms).toBe(1);
    expect(two.read()[0]).toMatchObject({ status: "SUSPENDED", features: ordinary.features });
    two.release();
    expect(packer.distinctTerms).toBe(0);
  });

  test("an ordinary one takes 36 bytes", () => {
    expect(pack(createLicensePacker(), [ordinary]).length).toBe(36);
  });
});
