import { TrackUsageRequestSchema } from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { below, pick } from "./attack.ts";

/** As many events as a batch may have, and one more. */
const LARGEST_BATCHES = [1_000, 1_001];

const x = (length: number) => "x".repeat(length);
const entries = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, "v"]));
const codes = ["", "a", "9_.-", "A", ".a", "é", "a\0", x(62), x(63), x(64)];

/** What a field may hold at most and what is beyond, what is odd and what is refused; where a rule changes, one of these shows it. */
const unusual: Readonly<Record<string, readonly unknown[]>> = {
  id: ["", "é", "\0", x(127), x(128), x(255), x(256), "é".repeat(255)],
  source: ["", "é", "\0", x(255), x(256)],
  customerId: ["", "é", "\0", x(255), x(256)],
  licenseId: [
    "0197A000-0000-7000-8000-00000000000F",
    "00000000-0000-0000-0000-000000000000",
    "0197a0000000-7000-8000-000000000001",
    "0197a000000070008000000000000001",
    "0197a000-0000-7000-8000-00000000000g",
    "0197a000-0000-7000-8000-0000000000011",
  ],
  metric: codes,
  feature: codes,
  action: ["", "é", "\0", x(64), x(65)],
  quantity: [
    "",
    "0",
    "007",
    "0.25",
    "9".repeat(18),
    "9".repeat(19),
    `1.${"9".repeat(9)}`,
    `1.${"9".repeat(10)}`,
  ].concat([`${"9".repeat(18)}.${"9".repeat(9)}`, "1.", ".5", "-1", "+1", "1e3", " 1", "1\n", "١"]),
  dimensions: [
    { "": "v" },
    { [x(64)]: "", a: x(256) },
    { [x(65)]: "v" },
    { a: x(257) },
    { é: "v" },
    { a: "\0" },
    { constructor: "v", ["__proto__"]: "v" },
    entries(20),
    entries(21),
  ],
  occurredAt: [
    { seconds: 0n, nanos: 1 },
    { seconds: 1n, nanos: 0 },
    { seconds: -1n, nanos: 0 },
    { seconds: 1n, nanos: 999_999_999 },
    { seconds: 1n, nanos: 1_000_000_000 },
    { seconds: 1n, nanos: -1 },
    { seconds: 253_402_300_799n, nanos: 0 },
    { seconds: 253_402_300_800n, nanos: 0 },
    { seconds: 2n ** 60n, nanos: 0 },
  ],
};

/** A request to track usage, of plain events with something unusual here and there. */
export function trackRequest(random: () => number, typeName: string): Record<string, unknown> {
  if (typeName === TrackUsageRequestSchema.typeName) return { event: random() < 0.98 ? usageEvent(random) : undefined };
  // Events of a large batch are as plain as they come: else it would never be taken whole.
  if (random() < 0.005) return { events: Array.from({ length: pick(random, LARGEST_BATCHES) }, () => plainEvent()) };
  return { events: Array.from({ length: below(random, 4) }, () => usageEvent(random)) };
}

function usageEvent(random: () => number): Record<string, unknown> {
  const event = plainEvent();
  if (random() < 0.5) {
    Object.assign(event, {
      licenseId: "0197a000-0000-7000-8000-000000000001",
      dimensions: { region: "eg", venue: "egx" },
      occurredAt: { seconds: BigInt(1_900_000_000 + below(random, 1_000)), nanos: below(random, 1_000) * 1_000_000 },
    });
  }
  for (const [field, values] of Object.entries(unusual)) {
    if (random() < 0.05) event[field] = pick(random, values);
  }
  return event;
}

function plainEvent(): Record<string, unknown> {
  return {
    id: "e-1",
    source: "gateway",
    customerId: "cairo-capital",
    metric: "api_calls",
    feature: "egx",
    quantity: "1",
  };
}
