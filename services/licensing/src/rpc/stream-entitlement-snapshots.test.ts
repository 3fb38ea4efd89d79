import { expect, test } from "@jest/globals";
import type { License } from "../domain/license.ts";
import type { Snapshot } from "../store/snapshots.ts";
import { inMessages } from "./stream-entitlement-snapshots.ts";

const snapshot = (customerId: string, licenses: number): Snapshot => ({
  tenantId: "t",
  customerId,
  version: 1n,
  licenses: Array.from({ length: licenses }, () => ({}) as License),
  issuedAt: new Date(0),
});

test("messages hold at most 20 licenses, or one customer that has more; order and completeness stay", () => {
  const sizes = [0, 1, 18, 2, 500, 1, 20, 19, 1, 1];
  const messages = inMessages(sizes.map((size, index) => snapshot(`${index}`, size)));
  expect(messages.map((message) => message.map(({ customerId }) => customerId))).toEqual([
    ["0", "1", "2"],
    ["3"],
    ["4"],
    ["5"],
    ["6"],
    ["7", "8"],
    ["9"],
  ]);
  expect(inMessages([])).toEqual([]);
});
