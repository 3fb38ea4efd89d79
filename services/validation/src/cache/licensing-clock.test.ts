import { describe, expect, test } from "@jest/globals";
import { createLicensingClock } from "./licensing-clock.ts";

function setUp() {
  const machine = { wallMs: 5_000_000, steadyMs: 70 };
  const clock = createLicensingClock(() => ({ ...machine }));
  const pass = (ms: number) => {
    machine.wallMs += ms;
    machine.steadyMs += ms;
  };
  /** The database is a minute ahead of this machine; asking takes 40 ms. */
  const calibrate = () => {
    const askedAt = clock.now();
    const databaseMs = machine.wallMs + 20 + 60_000;
    pass(40);
    clock.calibrate(askedAt, databaseMs);
  };
  return { machine, clock, pass, calibrate };
}

describe("createLicensingClock", () => {
  test("is the wall clock until it is calibrated", () => {
    expect(setUp().clock.latestMs()).toBe(5_000_000);
  });

  test("is ahead of the database by half of what the asking took, never behind", () => {
    const { machine, clock, pass, calibrate } = setUp();
    calibrate();
    expect(clock.latestMs()).toBe(machine.wallMs + 60_000 + 20);
    pass(60_000);
    expect(clock.latestMs()).toBe(machine.wallMs + 60_000 + 20);
  });

  test("a wall clock that is set back does not make it younger", () => {
    const { machine, clock, calibrate } = setUp();
    calibrate();
    const before = clock.latestMs();
    machine.wallMs -= 3_600_000;
    machine.steadyMs += 31_000;
    expect(clock.latestMs()).toBe(before + 31_000);
  });

  test("counts the time for which the machine slept", () => {
    const { machine, clock, calibrate } = setUp();
    calibrate();
    const before = clock.latestMs();
    machine.wallMs += 600;
    expect(clock.latestMs()).toBe(before + 600);
  });

  test("without calibration for long it allows for drift, until the next one", () => {
    const { machine, clock, pass, calibrate } = setUp();
    calibrate();
    pass(120_000 + 1_000_000);
    expect(clock.latestMs()).toBe(machine.wallMs + 60_000 + 20 + 500);
    calibrate();
    expect(clock.latestMs()).toBe(machine.wallMs + 60_000 + 20);
  });
});
