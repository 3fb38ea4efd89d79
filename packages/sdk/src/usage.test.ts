import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { Enforcement, LimitWindow } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { WatchEntitlementsResponseSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createTrustedClock } from "./clock.ts";
import { createWatchedFacts, type SavedFacts } from "./facts.ts";

type Content = NonNullable<MessageInitShape<typeof WatchEntitlementsResponseSchema>["content"]>;

const day = Date.parse("2030-06-15T00:00:00Z");
const dayMs = 86_400_000;
const noon = day + dayMs / 2;

/** What a watch tells a client whose clock stands until it is set: two quotas a day of 10, one of them soft. */
function open(saved?: SavedFacts) {
  let nowMs = noon;
  const machine = () => ({ wallMs: nowMs, steadyMs: nowMs });
  const clock = createTrustedClock(machine);
  const facts = createWatchedFacts({ clock, saved, steadyMs: () => nowMs });
  const tell = (content: Content): void => {
    facts.apply(create(WatchEntitlementsResponseSchema, { resumeToken: "t", content }), machine());
  };
  const limit = { maximum: 10n, window: LimitWindow.PER_DAY };
  const license = { licenseId: "l1", product: "p", status: LicenseStatus.ACTIVE, features: ["f"] };
  const limits = [
    { ...limit, metric: "calls", enforcement: Enforcement.HARD },
    { ...limit, metric: "rows", enforcement: Enforcement.SOFT },
  ];
  return {
    facts,
    reset: () => tell({ case: "reset", value: {} }),
    snapshot: (version = 1n, customerId = "c") =>
      tell({
        case: "snapshot",
        value: { tenantId: "t", customerId, version, licenses: [{ ...license, limits }] },
      }),
    use: (metric: string, used: number, version: bigint, asOfMs = nowMs) => {
      const level = { metric, window: LimitWindow.PER_DAY, windowStart: timestampFromMs(day), used: `${used}` };
      const asOf = timestampFromMs(asOfMs);
      tell({ case: "usage", value: { customerId: "c", version, asOf, levels: [level] } });
    },
    beat: (kind: "synchronized" | "heartbeat", usageAsOfMs?: number) => {
      const usageAsOf = usageAsOfMs === undefined ? undefined : timestampFromMs(usageAsOfMs);
      const now = timestampFromMs(nowMs);
      tell({ case: kind, value: { factsAsOf: now, sentAt: now, usageAsOf } });
    },
    pass: (ms: number) => {
      nowMs += ms;
    },
    check: (customerId = "c") => facts.check(customerId, "f"),
  };
}

function opened() {
  const client = open();
  client.reset();
  client.snapshot();
  client.beat("synchronized", noon);
  return client;
}

describe("usage that a watch tells", () => {
  test("denies by a hard quota that is used up, and tells a soft one", () => {
    const { use, check } = opened();
    expect(check()).toMatchObject({ allowed: true, limitViolations: [], usageStalenessMs: 0 });
    use("rows", 11, 1n);
    expect(check()).toMatchObject({
      allowed: true,
      limitViolations: [{ metric: "rows", current: "11", enforcement: "SOFT" }],
    });
    use("calls", 10, 2n);
    expect(check()).toMatchObject({
      reason: "LIMIT_EXCEEDED",
      limitViolations: [{ metric: "calls", current: "10", limit: 10n, source: "USAGE" }],
    });
  });

  test("counts nothing any more once its window is over, also in a verdict that is kept", () => {
    const { use, check, pass, beat } = opened();
    use("calls", 10, 1n);
    pass(dayMs / 2 - 1_000);
    beat("heartbeat");
    expect(check().reason).toBe("LIMIT_EXCEEDED");
    expect(check()).toBe(check());
    pass(999);
    expect(check().reason).toBe("LIMIT_EXCEEDED");
    pass(1);
    expect(check().allowed).toBe(true);
  });

  test("is as young as heartbeats say, while nothing is used too; and a verdict ages once something else holds", () => {
    const { use, check, pass, beat } = opened();
    const unused = check();
    pass(5_000);
    expect(unused.usageStalenessMs).toBe(5_000);
    beat("heartbeat", noon + 4_000);
    expect(unused.usageStalenessMs).toBe(1_000);
    use("calls", 1, 1n, noon + 4_500);
    const used = check();
    expect(used.usageStalenessMs).toBe(500);
    pass(1_000);
    beat("heartbeat", noon + 6_000);
    expect([unused, used].map(({ usageStalenessMs }) => usageStalenessMs)).toEqual([2_000, 0]);
    // Usage metering is away, and what is known of usage grows old though facts stay young.
    pass(60_000);
    beat("heartbeat", noon + 6_000);
    expect(check()).toMatchObject({ degraded: false, usageStalenessMs: 60_000 });
  });

  test("of an instance that is behind does not replace what is known; an equal version may tell of a new window", () => {
    const { use, check } = opened();
    use("calls", 10, 5n, noon);
    use("calls", 9, 4n, noon + 1);
    use("calls", 9, 5n, noon - 1);
    expect(check().allowed).toBe(false);
    use("calls", 9, 5n, noon);
    expect(check().allowed).toBe(true);
  });

  test("is not known, and not compared, where nobody vouches for it, and after a reset that does not tell it", () => {
    const client = open();
    client.reset();
    client.snapshot();
    client.beat("synchronized");
    expect(client.check()).toMatchObject({ allowed: true, usageStalenessMs: undefined });
    client.use("calls", 10, 1n);
    expect(client.check().allowed).toBe(false);
    client.reset();
    client.snapshot();
    expect(client.check().allowed).toBe(false);
    client.beat("synchronized");
    expect(client.check()).toMatchObject({ allowed: true, usageStalenessMs: undefined });
    client.beat("heartbeat", noon);
    expect(client.check().usageStalenessMs).toBe(0);
  });

  test("is not known of a customer who came since somebody vouched, whatever the age of what others have used", () => {
    const { snapshot, beat, check, facts } = opened();
    snapshot(1n, "newcomer");
    beat("heartbeat");
    expect(check().usageStalenessMs).toBe(0);
    expect(check("newcomer")).toMatchObject({ allowed: true, usageStalenessMs: undefined });
    expect(open(facts.save()).check("newcomer").usageStalenessMs).toBeUndefined();
    // An instance that is behind does so less far than the one before.
    beat("heartbeat", noon - 1);
    expect(check("newcomer").usageStalenessMs).toBeUndefined();
    beat("heartbeat", noon);
    expect(check("newcomer").usageStalenessMs).toBe(0);
    expect(open(facts.save()).check("newcomer").usageStalenessMs).toBe(0);
  });

  test("is not saved as vouched for of a customer who comes while it is saved", () => {
    const { snapshot, facts } = opened();
    const saved = facts.save();
    snapshot(1n, "newcomer");
    const again = open({ ...saved, messages: [...saved.messages] });
    expect(again.check().usageStalenessMs).toBe(0);
    expect(again.check("newcomer").allowed).toBe(false);
  });

  test("is kept over a restart with its age", () => {
    const { use, pass, beat, facts } = opened();
    use("calls", 10, 1n);
    pass(2_000);
    beat("heartbeat", noon + 2_000);
    const again = open(facts.save());
    again.pass(3_000);
    expect(again.check()).toMatchObject({ reason: "LIMIT_EXCEEDED", usageStalenessMs: 1_000 });
  });
});
