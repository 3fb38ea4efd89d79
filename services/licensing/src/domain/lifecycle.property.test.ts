import { expect, test } from "@jest/globals";
import { ServiceError } from "@licet/platform/errors";
import fc from "fast-check";
import { grantsAt } from "./grant.ts";
import { DAY_MS, type License, type LicenseStatus, statusAt } from "./license.ts";
import * as lifecycle from "./lifecycle.ts";
import { bareLicense, planLicense } from "./provision.ts";
import { nextDueAt, nextStep } from "./schedule.ts";
import type { Plan, PlanTerms } from "./terms.ts";
import { transitions } from "./transitions.ts";

// Random commands against a small model: a license as a status that events move, day by day, along a written-out table.
// The code computes the status from times; the model knows none, it counts days. Where both agree at every moment, the
// computed status is the one that the events lead to.

const origin = Date.parse("2026-01-01T00:00:00Z");
const dayAt = (day: number) => new Date(origin + day * DAY_MS);

const terms = (type: PlanTerms["type"], termDays: number, grantable: string[]): PlanTerms => ({
  type,
  features: ["x"],
  limits: [],
  usagePrices: [],
  termDays,
  attributes: {},
  grantable,
});
const plans: Readonly<Record<"trial" | "standard", Plan>> = {
  trial: {
    product: "p",
    plan: "trial",
    name: "T",
    version: 1,
    latestVersion: 1,
    terms: terms("trial", 10, ["*"]),
    publishedAt: dayAt(0),
    revision: 1n,
  },
  standard: {
    product: "p",
    plan: "standard",
    name: "S",
    version: 1,
    latestVersion: 1,
    terms: terms("standard", 40, ["a"]),
    publishedAt: dayAt(0),
    revision: 1n,
  },
};

/** A license as a clerk with a calendar would keep it: in whole days. */
interface Model {
  status: LicenseStatus;
  type: "trial" | "standard";
  from: number;
  until: number;
  grace: number;
  pastDue: boolean;
  unpaidUntil: number | undefined;
  cancelOn: number | undefined;
  byBilling: boolean;
  /** The features that are granted, with the day on which that ends. */
  grants: Map<Granted, number | undefined>;
}

type Granted = "a" | "b";

type Moved = [from: LicenseStatus, to: LicenseStatus];

/** The grants that end on the morning of a day. */
function endingGrants(m: Model, day: number): Granted[] {
  if (isOver(m.status)) return [];
  const ending = [...m.grants].filter(([, until]) => until === day).map(([feature]) => feature);
  for (const feature of ending) m.grants.delete(feature);
  return ending.sort();
}

/** What the morning of a day brings; more than one thing where a grace has no days. */
function morning(m: Model, day: number): Moved[] {
  const moves: Moved[] = [];
  const go = (to: LicenseStatus) => {
    moves.push([m.status, to]);
    m.status = to;
  };
  const alive = m.status !== "cancelled" && m.status !== "revoked";
  if (m.status === "pending" && day === m.from) go("active");
  if (alive && day === m.cancelOn) {
    go("cancelled");
    return moves;
  }
  const runs = m.status === "active" || m.status === "past_due" || m.status === "grace";
  if (runs && m.unpaidUntil === day && day < m.until + m.grace) {
    go("suspended");
    m.byBilling = true;
    m.pastDue = false;
    m.unpaidUntil = undefined;
  }
  if (m.status === "past_due" && day === m.until) go("grace");
  if (m.status === "active" && day === m.until && m.grace > 0) go("grace");
  if ((m.status === "active" || m.status === "grace") && day === m.until + m.grace) go("expired");
  return moves;
}

type Command =
  | {
      do:
        | "suspend"
        | "resume"
        | "revoke"
        | "cancel"
        | "cancelAtEnd"
        | "keep"
        | "paid"
        | "pastDue"
        | "unpaid"
        | "upgrade";
    }
  | { do: "activate"; feature: Granted; days: number | undefined }
  | { do: "deactivate"; feature: Granted }
  | { do: "grace" | "renewFromEnd" | "renewFromNow" | "renewUntil" | "extend" | "pass"; days: number };

/** Whether the table and the command's own rule let it happen; and if so, what the clerk writes down. */
function carryOut(m: Model, command: Command, day: number): boolean {
  const { status } = m;
  const over = status === "grace" || status === "expired";
  const alive = status !== "cancelled" && status !== "revoked";
  const owes = m.pastDue || (status === "suspended" && m.byBilling);
  const settleDebt = () => Object.assign(m, { pastDue: false, unpaidUntil: undefined, byBilling: false });
  /** Where a license stands that is in force by everybody's will. */
  const byCalendar = (): LicenseStatus =>
    day < m.from ? "pending" : day < m.until ? "active" : day < m.until + m.grace ? "grace" : "expired";
  const newEnd = (until: number): boolean => {
    if (!alive || until <= day || until <= m.from) return false;
    Object.assign(m, { until, cancelOn: undefined });
    if (over) {
      settleDebt();
      m.status = "active";
    }
    return true;
  };
  switch (command.do) {
    case "suspend":
    case "unpaid":
      if (!["active", "past_due", "grace"].includes(status)) return false;
      settleDebt();
      m.byBilling = command.do === "unpaid";
      m.status = "suspended";
      return true;
    case "resume":
      if (status !== "suspended" || byCalendar() === "grace") return false;
      settleDebt();
      m.status = byCalendar();
      return true;
    case "revoke":
    case "cancel":
      if (!alive) return false;
      m.status = command.do === "revoke" ? "revoked" : "cancelled";
      return true;
    case "cancelAtEnd":
      if (!alive) return false;
      if (day >= m.until) m.status = "cancelled";
      else m.cancelOn = m.until;
      return true;
    case "keep":
      if (alive) m.cancelOn = undefined;
      return alive;
    case "pastDue":
      if (status !== "active") return false;
      m.pastDue = true;
      m.status = "past_due";
      return true;
    case "grace":
      if (status !== "active" && status !== "past_due") return false;
      Object.assign(m, { status: "grace", pastDue: true, unpaidUntil: day + command.days });
      return true;
    case "paid":
      if (!owes || status === "expired" || !alive || (status === "suspended" && byCalendar() === "grace")) return false;
      settleDebt();
      m.status = byCalendar();
      return true;
    case "upgrade":
      if (!alive) return false;
      if (m.type === "trial") {
        m.from = status === "pending" ? m.from : day;
        newEnd(m.from + 40);
        m.type = "standard";
      }
      m.grants.delete("b");
      return true;
    case "extend":
      return m.type === "trial" && newEnd(Math.max(m.until, day) + command.days);
    case "renewFromEnd":
      return newEnd(m.until + command.days);
    case "renewFromNow":
      return newEnd(day + command.days);
    case "renewUntil":
      return newEnd(command.days);
    case "activate":
      if (!alive || (m.type === "standard" && command.feature === "b")) return false;
      m.grants.set(command.feature, command.days === undefined ? undefined : day + command.days);
      return true;
    case "deactivate":
      return alive && m.grants.delete(command.feature);
    case "pass":
      return true;
  }
}

/** The same command, to the code. */
function order(license: License, command: Command, now: Date): License {
  switch (command.do) {
    case "suspend":
      return lifecycle.suspend(license, "r", now);
    case "resume":
      return lifecycle.resume(license, now);
    case "revoke":
      return lifecycle.revoke(license, "r", now);
    case "cancel":
    case "cancelAtEnd":
      return lifecycle.cancel(license, command.do === "cancelAtEnd", "r", now);
    case "keep":
      return lifecycle.update(license, { keep: true }, now);
    case "paid":
      return lifecycle.setPaymentStanding(license, { kind: "paid" }, "", now);
    case "pastDue":
      return lifecycle.setPaymentStanding(license, { kind: "past_due" }, "r", now);
    case "unpaid":
      return lifecycle.setPaymentStanding(license, { kind: "unpaid" }, "r", now);
    case "grace":
      return lifecycle.setPaymentStanding(
        license,
        { kind: "grace", until: new Date(+now + command.days * DAY_MS) },
        "",
        now,
      );
    case "upgrade":
      return lifecycle.changePlan(license, plans.standard, { addOns: [] }, now);
    case "extend":
      return lifecycle.extendTrial(license, command.days, now);
    case "renewFromEnd":
      return lifecycle.renew(license, { from: "expiry", days: command.days }, undefined, now);
    case "renewFromNow":
      return lifecycle.renew(license, { from: "now", days: command.days }, undefined, now);
    case "renewUntil":
      return lifecycle.renew(license, { until: dayAt(command.days) }, undefined, now);
    case "activate": {
      const { feature, days } = command;
      const wanted = { feature, activatedBy: "k", onBehalfOf: "", configuration: "" };
      const until = days === undefined ? {} : { expiresAt: new Date(+now + days * DAY_MS) };
      const { grantable } = plans[license.type as "trial" | "standard"].terms;
      return lifecycle.activateFeature(license, { ...wanted, ...until }, grantable, now);
    }
    case "deactivate":
      return lifecycle.deactivateFeature(license, command.feature, now);
    case "pass":
      return license;
  }
}

const days = fc.integer({ min: 1, max: 25 });
const feature = fc.constantFrom<Granted>("a", "b");
const commands = fc.array(
  fc.oneof(
    {
      arbitrary: fc.record({
        do: fc.constantFrom("suspend", "resume", "cancelAtEnd", "keep", "paid", "pastDue", "unpaid", "upgrade"),
      }),
      weight: 9,
    },
    // What ends a license for good, less often: most runs are to be long ones.
    { arbitrary: fc.record({ do: fc.constantFrom("revoke", "cancel") }), weight: 1 },
    {
      arbitrary: fc.record({ do: fc.constantFrom("grace", "renewFromEnd", "renewFromNow", "extend"), days }),
      weight: 4,
    },
    {
      arbitrary: fc.record({
        do: fc.constant("activate"),
        feature,
        days: fc.option(days, { nil: undefined, freq: 4 }),
      }),
      weight: 4,
    },
    { arbitrary: fc.record({ do: fc.constant("deactivate"), feature }), weight: 2 },
    { arbitrary: fc.record({ do: fc.constant("renewUntil"), days: fc.integer({ min: 0, max: 120 }) }), weight: 1 },
    { arbitrary: fc.record({ do: fc.constant("pass"), days }), weight: 5 },
  ) as fc.Arbitrary<Command>,
  { minLength: 1, maxLength: 25 },
);

interface Start {
  type: "trial" | "standard";
  from: number;
  grace: number;
  autoRenew: boolean;
}

const starts: fc.Arbitrary<Start> = fc.record({
  type: fc.constantFrom("trial", "standard"),
  from: fc.integer({ min: 0, max: 6 }),
  grace: fc.integer({ min: 0, max: 5 }),
  autoRenew: fc.boolean(),
});

interface Life {
  license: License;
  model: Model;
  day: number;
}

function begin({ type, from, grace, autoRenew }: Start): Life {
  const wanted = {
    licenseId: "l",
    customerId: "c",
    product: "p",
    graceDays: grace,
    validFrom: dayAt(from),
    autoRenew,
    metadata: {},
    now: dayAt(0),
  };
  const license = planLicense(wanted, plans[type]);
  const until = from + plans[type].terms.termDays;
  const rest = { pastDue: false, unpaidUntil: undefined, cancelOn: undefined, byBilling: false, grants: new Map() };
  return { license, model: { status: from === 0 ? "active" : "pending", type, from, until, grace, ...rest }, day: 0 };
}

function isOver(status: LicenseStatus): boolean {
  return status === "cancelled" || status === "revoked";
}

/** Lets a license live through the days up to `to` with a teller that looks every `everyDays`; returns what it told. */
function live(life: Life, to: number, everyDays: number): { told: Moved[]; notices: number[]; renewals: number } {
  const seen = { told: [] as Moved[], notices: [] as number[], renewals: 0 };
  const moved: Moved[] = [];
  const ended: string[] = [];
  const toldEnded: string[] = [];
  while (life.day < to) {
    life.day += 1;
    ended.push(...endingGrants(life.model, life.day).map((one) => `${life.day}: ${one}`));
    moved.push(...morning(life.model, life.day));
    const now = dayAt(life.day);
    const status = statusAt(life.license, now);
    // Jest's matchers are slow, and this is asked of every day of every life.
    if (status !== life.model.status) throw new Error(`on day ${life.day} it is ${status}, not ${life.model.status}`);
    const { grants } = life.model;
    const held = grantsAt(life.license.grants, now).length;
    if (!isOver(status) && held !== grants.size)
      throw new Error(`on day ${life.day} it has ${held} grants, not ${grants.size}`);
    if (life.day % everyDays !== 0 && life.day < to) continue;
    const due = nextDueAt(life.license, dayAt(life.day - 1));
    for (let step = nextStep(life.license, now); step; step = nextStep(life.license, now)) {
      const { cause, at, from, to: next, noticeDays } = step.happening;
      expect(+at).toBeLessThanOrEqual(+now);
      if (cause === "EXPIRY_NOTICE") seen.notices.push(noticeDays as number);
      else if (cause === "RENEWAL_DUE") seen.renewals += 1;
      else if (cause === "GRANT_EXPIRED") toldEnded.push(`${(+at - origin) / DAY_MS}: ${step.happening.feature}`);
      else seen.told.push([from, next]);
      // A teller that had slept until the due time would have seen it, too.
      expect(Number(due)).toBeLessThanOrEqual(+now);
      life.license = step.license;
      expect(statusAt(life.license, now)).toBe(life.model.status);
    }
    const next = nextDueAt(life.license, now);
    if (next && next <= now) throw new Error(`all is told, and still something is due at ${next.toISOString()}`);
  }
  expect(seen.told).toEqual(moved);
  expect(toldEnded).toEqual(ended);
  return seen;
}

test("whatever is done in whatever order, a license stands where the table leads, and each change is told once", () => {
  fc.assert(
    fc.property(starts, commands, fc.integer({ min: 1, max: 9 }), (start, list, everyDays) => {
      const life = begin(start);
      for (const command of list) {
        if (command.do === "pass") {
          live(life, life.day + command.days, everyDays);
          continue;
        }
        const now = dayAt(life.day);
        const before = life.license;
        const from = life.model.status;
        const result = ((): License | ServiceError => {
          try {
            return order(before, command, now);
          } catch (error) {
            if (error instanceof ServiceError) return error;
            throw error;
          }
        })();
        const allowed = carryOut(life.model, command, life.day);
        expect([command, !(result instanceof ServiceError)]).toEqual([command, allowed]);
        if (result instanceof ServiceError) {
          expect(["FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND"]).toContain(result.code);
          continue;
        }
        life.license = result;
        const granted = result.grants.map(({ feature, expiresAt }) => [
          feature,
          expiresAt && (+expiresAt - origin) / DAY_MS,
        ]);
        expect(granted).toEqual([...life.model.grants].sort());
        const to = statusAt(result, now);
        expect([command, to]).toEqual([command, life.model.status]);
        if (from !== to) expect(transitions[from]).toContain(to);
        expect(result.revision).toBe(before.revision + 1n);
        // What was decided is told with the decision, so the clock has nothing to add at that moment.
        expect(nextStep(result, now)?.happening.cause ?? "RENEWAL_DUE").toMatch(/RENEWAL_DUE|EXPIRY_NOTICE/);
      }
      live(life, life.day + 150, everyDays);
    }),
    { numRuns: 1_000 },
  );
});

test("a license that nobody touches gets its notices once each, in their order, and is handed over once", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 10 }), (length, grace) => {
      const license = bareLicense(
        {
          licenseId: "l",
          customerId: "c",
          product: "p",
          graceDays: grace,
          validFrom: dayAt(0),
          validUntil: dayAt(length),
          autoRenew: true,
          metadata: {},
          now: dayAt(0),
        },
        { features: ["*"], limits: [] },
      );
      const rest = { pastDue: false, unpaidUntil: undefined, cancelOn: undefined, byBilling: false, grants: new Map() };
      const model: Model = { status: "active", type: "standard", from: 0, until: length, grace, ...rest };
      const { notices, renewals } = live({ license, model, day: 0 }, 80, 1);
      expect(notices).toEqual([30, 14, 7, 1].filter((days) => days < length));
      expect(renewals).toBe(1);
    }),
  );
});
