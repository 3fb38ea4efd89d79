import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "@jest/globals";
import { LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import {
  type WatchEntitlementsResponse,
  WatchEntitlementsResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import fc from "fast-check";
import { createTrustedClock } from "./clock.ts";
import { createWatchedFacts, type WatchedFacts } from "./facts.ts";

const START_MS = Date.UTC(2026, 5, 15, 12);
const MIDNIGHT_MS = Date.UTC(2026, 5, 15);
const customers = ["ada", "bob", "eve"] as const;

/** What is told of a customer: a version, whether the license is active, and how much was used of 10 calls a day. */
type Told =
  | { readonly kind: "snapshot"; readonly customerId: string; readonly version: number; readonly active: boolean }
  | { readonly kind: "erased"; readonly customerId: string }
  | { readonly kind: "usage"; readonly customerId: string; readonly used: number }
  /** From the beginning, but for the customers that are left out, and those of whom usage is. */
  | { readonly kind: "reset"; readonly without: readonly string[]; readonly unused: readonly string[] };

const anyCustomer = fc.constantFrom(...customers);
const anyTold: fc.Arbitrary<Told> = fc.oneof(
  fc.record({
    kind: fc.constant("snapshot" as const),
    customerId: anyCustomer,
    version: fc.integer({ min: 1, max: 300 }),
    active: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("erased" as const), customerId: anyCustomer }),
  fc.record({ kind: fc.constant("usage" as const), customerId: anyCustomer, used: fc.nat(20) }),
  fc.record({
    kind: fc.constant("reset" as const),
    without: fc.subarray([...customers]),
    unused: fc.subarray([...customers]),
  }),
);

interface Expected {
  readonly version: number;
  readonly active: boolean;
  readonly used: number;
}

function machineAt(nowMs: number) {
  return () => ({ wallMs: nowMs, steadyMs: nowMs - START_MS });
}

function respond(content: NonNullable<MessageInitShape<typeof WatchEntitlementsResponseSchema>["content"]>) {
  return create(WatchEntitlementsResponseSchema, { resumeToken: "t", content });
}

function snapshotOf(customerId: string, { version, active }: Pick<Expected, "version" | "active">) {
  const license = {
    licenseId: `license of ${customerId}`,
    customerId,
    product: "trading",
    features: ["egx_access"],
    status: active ? LicenseStatus.ACTIVE : LicenseStatus.REVOKED,
    limits: [{ metric: "api_calls", maximum: 10n, window: LimitWindow.PER_DAY, enforcement: 1 }],
  };
  return respond({
    case: "snapshot",
    value: { tenantId: "tradsys", customerId, version: BigInt(version), licenses: [license] },
  });
}

function usageOf(customerId: string, used: number) {
  const windowStart = timestampFromMs(MIDNIGHT_MS);
  const level = { metric: "api_calls", window: LimitWindow.PER_DAY, windowStart, licenseId: "", used: String(used) };
  return respond({ case: "usage", value: { customerId, asOf: timestampFromMs(START_MS), levels: [level] } });
}

function synchronized(atMs = START_MS) {
  const time = timestampFromMs(atMs);
  return respond({ case: "synchronized", value: { factsAsOf: time, sentAt: time } });
}

const first: readonly WatchEntitlementsResponse[] = [
  respond({ case: "reset", value: {} }),
  respond({ case: "catalog", value: { product: "trading", version: 1n, features: [{ feature: "egx_access" }] } }),
  synchronized(),
];

/** The messages for what is told, and the obvious model of what is known behind them. */
function tell(told: Told, model: Map<string, Expected>): WatchEntitlementsResponse[] {
  if (told.kind === "reset") {
    for (const customerId of told.without) model.delete(customerId);
    for (const customerId of told.unused) {
      const known = model.get(customerId);
      if (known !== undefined) model.set(customerId, { ...known, used: 0 });
    }
    const again = [...model].flatMap(([customerId, known]) => {
      const usage = known.used > 0 ? [usageOf(customerId, known.used)] : [];
      return [snapshotOf(customerId, known), ...usage];
    });
    return [...first.slice(0, 2), ...again, synchronized()];
  }
  const { customerId } = told;
  const known = model.get(customerId);
  if (told.kind === "usage") {
    if (known !== undefined) model.set(customerId, { ...known, used: told.used });
    return [usageOf(customerId, told.used)];
  }
  if (told.kind === "erased") {
    model.delete(customerId);
    return [respond({ case: "snapshot", value: { tenantId: "tradsys", customerId, version: 0n } })];
  }
  if (known === undefined || known.version < told.version) {
    model.set(customerId, { version: told.version, active: told.active, used: known?.used ?? 0 });
  }
  return [snapshotOf(customerId, told)];
}

function verdictsOf(facts: WatchedFacts) {
  return customers.map((customerId) => {
    const { reason, version } = facts.check(customerId, "egx_access");
    return [customerId, reason, Number(version)];
  });
}

function expectedOf(model: ReadonlyMap<string, Expected>) {
  return customers.map((customerId) => {
    const known = model.get(customerId);
    if (known === undefined) return [customerId, "NO_LICENSE", 0];
    const reason = known.active ? (known.used >= 10 ? "LIMIT_EXCEEDED" : "ALLOWED") : "LICENSE_REVOKED";
    return [customerId, reason, known.version];
  });
}

test("whatever a watch tells, the verdicts follow from the last of it, and outlive saving", () => {
  const property = fc.property(fc.array(anyTold, { maxLength: 40, size: "max" }), (course) => {
    const clock = createTrustedClock(machineAt(START_MS));
    const facts = createWatchedFacts({ clock, steadyMs: () => 0 });
    const model = new Map<string, Expected>();
    for (const message of first) facts.apply(message, clock.machine());
    for (const told of course) {
      for (const message of tell(told, model)) facts.apply(message, clock.machine());
      expect(verdictsOf(facts)).toEqual(expectedOf(model));
    }
    const { messages, ...head } = facts.save();
    const restored = createWatchedFacts({ clock, saved: { ...head, messages: [...messages] }, steadyMs: () => 0 });
    expect(verdictsOf(restored)).toEqual(expectedOf(model));
  });
  fc.assert(property);
});

test("what comes while the facts are saved is told or not, and nothing else is lost", () => {
  const clock = createTrustedClock(machineAt(START_MS));
  const facts = createWatchedFacts({ clock, steadyMs: () => 0 });
  for (const message of first) facts.apply(message, clock.machine());
  for (const customerId of customers)
    facts.apply(snapshotOf(customerId, { version: 1, active: true }), clock.machine());
  const saved = facts.save();
  const messages: Uint8Array[] = [];
  for (const message of saved.messages) {
    messages.push(message);
    if (messages.length > 1) continue;
    facts.apply(respond({ case: "snapshot", value: { customerId: "bob", version: 0n } }), clock.machine());
    facts.apply(snapshotOf("eve", { version: 2, active: false }), clock.machine());
  }
  const restored = createWatchedFacts({ clock, saved: { ...saved, messages }, steadyMs: () => 0 });
  expect(verdictsOf(restored)).toEqual([
    ["ada", "ALLOWED", 1],
    ["bob", "NO_LICENSE", 0],
    ["eve", "LICENSE_REVOKED", 2],
  ]);
});

test("a verdict is as young as its facts until something else holds, and ages from then on", () => {
  let nowMs = START_MS;
  const clock = createTrustedClock(() => machineAt(nowMs)());
  const facts = createWatchedFacts({ clock, steadyMs: () => nowMs - START_MS });
  const beat = (): void => facts.apply(synchronized(nowMs), clock.machine());
  for (const message of first) facts.apply(message, clock.machine());
  for (const customerId of customers)
    facts.apply(snapshotOf(customerId, { version: 1, active: true }), clock.machine());
  const [ada, bob, eve] = customers.map((customerId) => facts.check(customerId, "egx_access"));
  nowMs += 5_000;
  beat();
  facts.apply(snapshotOf("ada", { version: 2, active: false }), clock.machine());
  facts.apply(respond({ case: "snapshot", value: { customerId: "bob", version: 0n } }), clock.machine());
  facts.apply(usageOf("eve", 3), clock.machine());
  nowMs += 7_000;
  beat();
  expect([ada, bob, eve].map((verdict) => verdict?.stalenessMs)).toEqual([7_000, 7_000, 0]);
  expect(facts.check("ada", "egx_access").stalenessMs).toBe(0);
});
