import { describe, expect, test } from "@jest/globals";
import { type Fault, faultKinds, planFaults } from "./plan.ts";

const targets = {
  replicas: ["licensing-1", "validation-1", "validation-2", "usage-metering-1"],
  brokers: ["broker-1", "broker-2", "broker-3"],
  links: ["licensing-1>postgres", "clients>licensing-1"],
};
const hour = 3_600_000;
const kindsOf = (faults: readonly Fault[]) => [...new Set(faults.map(({ kind }) => kind))].sort();

describe("planFaults", () => {
  test("draws the same faults from the same seed, others from another one", () => {
    expect(planFaults(7, hour, targets)).toEqual(planFaults(7, hour, targets));
    expect(planFaults(7, hour, targets)).not.toEqual(planFaults(8, hour, targets));
  });

  test("a long run has every kind, in time, and a hundred kills in twenty minutes", () => {
    const faults = planFaults(1, hour, targets);
    expect(kindsOf(faults)).toEqual([...faultKinds].sort());
    expect(faults.every(({ atMs }, index) => atMs >= (faults[index - 1]?.atMs ?? 0) && atMs < hour)).toBe(true);
    expect(faults.filter(({ how }) => how === "SIGKILL").length).toBeGreaterThan(300);
    expect(faults.every(({ forMs }) => forMs <= 60_000)).toBe(true);
  });

  test("a short run is not one fault alone, and has no partition that outlasts it, unless that is asked for", () => {
    const faults = planFaults(1, 40_000, targets);
    expect(faults.every(({ forMs, kind }) => forMs <= 8_000 && kind !== "partition")).toBe(true);
    expect(kindsOf(planFaults(1, 40_000, targets, ["partition"]))).toEqual(["partition"]);
  });

  test("only what is asked for and possible is drawn", () => {
    expect(kindsOf(planFaults(1, hour, targets, ["stop", "redis"]))).toEqual(["redis", "stop"]);
    expect(planFaults(1, hour, { ...targets, brokers: [] }, ["broker"])).toEqual([]);
  });
});
