import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type WatchEntitlementsResponse,
  WatchEntitlementsResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import type { Snapshot } from "@licet/decide/entitlement";
import { toSnapshot } from "@licet/decide/from-wire";
// By their files: who uses the package gets them as a whole client only.
import { createTrustedClock, machineClocks } from "../packages/sdk/src/clock.ts";
import { createWatchedFacts } from "../packages/sdk/src/facts.ts";
import { customerId, snapshotOf } from "./cache-data.ts";
import { type Holder, serveMemory } from "./memory-process.ts";

type Content = NonNullable<MessageInitShape<typeof WatchEntitlementsResponseSchema>["content"]>;

/** As the watch brings it: nothing is shared with the message before. */
function received(content: Content): WatchEntitlementsResponse {
  const message = create(WatchEntitlementsResponseSchema, { resumeToken: "t", content });
  return fromBinary(WatchEntitlementsResponseSchema, toBinary(WatchEntitlementsResponseSchema, message));
}

function snapshotsFrom(take: (message: WatchEntitlementsResponse) => void, customers: number): void {
  for (let index = 0; index < customers; index++) {
    take(received({ case: "snapshot", value: snapshotOf(index) }));
  }
}

/** What the SDK holds, filled as a watch fills it. */
function holdFacts(): Holder {
  const clock = createTrustedClock(machineClocks);
  const facts = createWatchedFacts({ clock });
  const take = (message: WatchEntitlementsResponse): void => facts.apply(message, clock.machine());
  return {
    fill(customers) {
      take(received({ case: "reset", value: {} }));
      snapshotsFrom(take, customers);
      const time = timestampFromMs(Date.now());
      take(received({ case: "synchronized", value: { factsAsOf: time, sentAt: time } }));
    },
    ask(index) {
      const { version } = facts.check(customerId(index), "basic_trading");
      if (version === 0n) throw new Error(`customer ${index} is not there`);
    },
  };
}

/** The snapshots as the objects that were decoded. */
function holdObjects(): Holder {
  const held = new Map<string, Snapshot>();
  return {
    fill(customers) {
      const take = ({ content }: WatchEntitlementsResponse): void => {
        if (content.case !== "snapshot") return;
        const snapshot = toSnapshot(content.value);
        held.set(snapshot.customerId, snapshot);
      };
      snapshotsFrom(take, customers);
    },
    ask(index) {
      if (!held.has(customerId(index))) throw new Error(`customer ${index} is not there`);
    },
  };
}

serveMemory((side) => (side === "ours" ? holdFacts() : holdObjects()));
