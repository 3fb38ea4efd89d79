import { setTimeout as delay } from "node:timers/promises";
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import {
  ValidateStreamRequestSchema,
  ValidationService,
  WatchEntitlementsRequestSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createChannel } from "@licet/platform/rpc/client";
import { type Child, startChild } from "./child.ts";
import type { HeldReport, OpenRequest } from "./held-load.ts";
import { BARE_CONVERSE, BARE_WATCH, type ChangeRequest, CUSTOMERS, type HeldServerReport } from "./held-server.ts";
import { type Benchmark, quantile, type Row } from "./report.ts";

const STREAMS = 10_000;
/** So many streams go before, so that what only the first ones cost is not counted. */
const WARM_UP_STREAMS = 200;
/** Of the watches, one in so many is of the whole tenant; the others name one customer each. */
const WHOLE_EVERY = 1_000;
/** What was opened or closed has settled so long after, in milliseconds. */
const SETTLE_MS = 2_000;
const FEATURE = "egx_access";

/** While streams are read: changes as they come, for so many seconds. */
const READ_SECONDS = 8;
const READ_PER_SECOND = 10;
/** While nothing is read: ten minutes of them at 30 a second, in half a minute; more than the window of a watch of all takes. */
const TEN_MINUTES: ChangeRequest = { changes: 18_000, perSecond: 600 };
/** A canary asks this often, in milliseconds. */
const CANARY_MS = 10;
/** It is to tell how late answers are, and not to give up. */
const CANARY_TIMEOUT_MS = 60_000;

const MAX_STREAM_KIB = 40;
/** What may wait for a reader of a stream before its handler waits too. */
const MAX_UNREAD_KIB = 64;
const MAX_CANARY_MS = 100;
/** What may be left of one round of streams beside what was left of the round before, in MiB. */
const MAX_LEFT_MIB = 8;

/** Streams of one kind, at one server. */
interface Kind {
  readonly path: string;
  readonly bodies: readonly string[];
  readonly endsInput: boolean;
}

const empty = [""];
const { watchEntitlements, validateStream } = ValidationService.method;
const kinds = {
  bareWatch: { path: BARE_WATCH, bodies: empty, endsInput: true },
  bareConverse: { path: BARE_CONVERSE, bodies: empty, endsInput: false },
  watch: {
    path: `/${ValidationService.typeName}/${watchEntitlements.name}`,
    bodies: bodiesOf(WatchEntitlementsRequestSchema, (index) => ({
      customerIds: index % WHOLE_EVERY === 0 ? [] : [`customer-${index}`],
    })),
    endsInput: true,
  },
  converse: {
    path: `/${ValidationService.typeName}/${validateStream.name}`,
    bodies: bodiesOf(ValidateStreamRequestSchema, (index) => ({
      questions: [{ customerId: `customer-${index}`, feature: FEATURE }],
    })),
    endsInput: false,
  },
} satisfies Record<string, Kind>;

/** What one replica pays for streams that stay open, beside grpc-js with handlers that know nothing. */
export const held: Benchmark = {
  about:
    `${STREAMS} WatchEntitlements and then ${STREAMS} ValidateStream held by one replica: memory of each, of slow ` +
    "readers, after all are gone, and what other callers notice; against bare grpc-js streams",
  async run() {
    const load = startChild("held-load.ts", [], 1);
    try {
      return [...(await measureWatches(load)), ...(await measureConversations(load))];
    } finally {
      await load.stop();
    }
  },
};

/** Works with a server of its own: memory that a process was given once, it seldom gives back. */
async function withServer<T>(side: "bare" | "ours", work: (server: Child) => Promise<T>): Promise<T> {
  const server = startChild("held-server.ts", [side], 0, ["--expose-gc"]);
  try {
    return await work(server);
  } finally {
    await server.stop();
  }
}

async function measureWatches(load: Child): Promise<Row[]> {
  const bare = await withServer("bare", (server) => round(server, load, kinds.bareWatch));
  return withServer("ours", async (server) => {
    const at = await server.ask<HeldServerReport>("report");
    const alone = await withCanary(at, () => delay(SETTLE_MS));
    const read: ChangeRequest = { changes: READ_SECONDS * READ_PER_SECOND, perSecond: READ_PER_SECOND };
    let readP99Ms = 0;
    let unreadKib = 0;
    const first = await round(server, load, kinds.watch, async ({ rssKib, liveKib }) => {
      readP99Ms = await withCanary(at, () => server.ask(read));
      await load.ask("pause");
      const slow = await withCanary(at, () => server.ask(TEN_MINUTES));
      const after = await server.ask<HeldServerReport>("report");
      unreadKib = (after.rssKib - rssKib) / STREAMS;
      const live = ((after.liveKib - liveKib) / STREAMS).toFixed(1);
      console.log(
        `ten minutes of changes, unread: ${unreadKib.toFixed(1)} KiB more a stream, ${live} of them live; a canary's p99 ` +
          `while they are applied in ${TEN_MINUTES.changes / TEN_MINUTES.perSecond} s or more: ${slow.toFixed(1)} ms`,
      );
    });
    const second = await round(server, load, kinds.watch);
    const name = "WatchEntitlements";
    return [
      perStream(name, bare, first),
      most("ten minutes of changes unread, growth", first.streamKib, unreadKib, "KiB a stream", MAX_UNREAD_KIB),
      most(`a canary beside ${name}, p99`, alone, readP99Ms, "ms", MAX_CANARY_MS),
      left(name, first, second),
    ];
  });
}

async function measureConversations(load: Child): Promise<Row[]> {
  const bare = await withServer("bare", (server) => round(server, load, kinds.bareConverse));
  return withServer("ours", async (server) => {
    const at = await server.ask<HeldServerReport>("report");
    const alone = await withCanary(at, () => delay(SETTLE_MS));
    let besideP99Ms = 0;
    const first = await round(server, load, kinds.converse, async () => {
      besideP99Ms = await withCanary(at, () => delay(SETTLE_MS));
    });
    const second = await round(server, load, kinds.converse);
    const name = "ValidateStream";
    return [
      perStream(name, bare, first),
      most(`a canary beside ${name}, p99`, alone, besideP99Ms, "ms", MAX_CANARY_MS),
      left(name, first, second),
    ];
  });
}

function perStream(name: string, baseline: Round, ours: Round): Row {
  return most(`${name}, resident`, baseline.streamKib, ours.streamKib, "KiB a stream", MAX_STREAM_KIB);
}

/** What a second round leaves behind, against the first. */
function left(name: string, first: Round, second: Round): Row {
  const row = { name: `${name}, live once all have gone again`, baseline: first.leftMib, ours: second.leftMib };
  const met = second.leftMib <= first.leftMib + MAX_LEFT_MIB;
  return { ...row, unit: "MiB", target: `≤ ${MAX_LEFT_MIB} more than the first time`, met };
}

function most(name: string, baseline: number, ours: number, unit: string, limit: number): Row {
  return { name, baseline, ours, unit, target: `≤ ${limit}`, met: ours <= limit };
}

/** What streams of one kind took. */
interface Round {
  /** Resident memory of the server for each stream while all are open, in KiB. */
  readonly streamKib: number;
  /** Live memory once they were given up, in MiB. */
  readonly leftMib: number;
}

/** Opens all streams of a kind, works while they are held, and gives them up. */
async function round(
  server: Child,
  load: Child,
  kind: Kind,
  work: (held: HeldServerReport) => Promise<void> = async () => undefined,
): Promise<Round> {
  const { port, credential } = await server.ask<HeldServerReport>("report");
  const request = (streams: number): OpenRequest => ({ ...kind, port, credential, streams });
  await load.ask(request(WARM_UP_STREAMS));
  const before = await giveUp(server, load);
  await load.ask(request(STREAMS));
  await delay(SETTLE_MS);
  const held = await server.ask<HeldServerReport>("report");
  // Its collections of garbage stop the server for half a second, and what was due meanwhile comes behind them.
  await delay(SETTLE_MS);
  await work(held);
  const { open, connections, ended } = await load.ask<HeldReport>("report");
  if (open < STREAMS) throw new Error(`only ${open} of ${STREAMS} streams of ${kind.path} stayed open: ${ended}`);
  const after = await giveUp(server, load);
  const streamKib = (held.rssKib - before.rssKib) / STREAMS;
  const mib = (kib: number): string => (kib / 1_024).toFixed(0);
  console.log(
    `${kind.path}: ${open} streams on ${connections} connections, ${streamKib.toFixed(1)} KiB each; resident ` +
      `${mib(before.rssKib)}, ${mib(held.rssKib)} and ${mib(after.rssKib)} MiB before, with and after them, ` +
      `live ${mib(before.liveKib)}, ${mib(held.liveKib)} and ${mib(after.liveKib)}`,
  );
  return { streamKib, leftMib: after.liveKib / 1_024 };
}

async function giveUp(server: Child, load: Child): Promise<HeldServerReport> {
  await load.ask("close");
  await delay(SETTLE_MS);
  return server.ask<HeldServerReport>("report");
}

/**
 * Works, and meanwhile asks one question after the other, each when it is due; from then on it takes what it takes.
 * Returns the p99 of that, in milliseconds.
 */
async function withCanary({ port, credential }: HeldServerReport, work: () => Promise<unknown>): Promise<number> {
  const channel = createChannel({ address: `127.0.0.1:${port}`, credential });
  const validation = createClient(ValidationService, channel);
  const ask = async (): Promise<void> => {
    const question = { customerId: "customer-1", feature: FEATURE };
    const { valid } = await validation.validateFeature(question, { timeoutMs: CANARY_TIMEOUT_MS });
    if (!valid) throw new Error("the canary's customer is denied");
  };
  // The connection is not what is measured.
  await ask();
  const times: number[] = [];
  let working = true;
  const asking = (async () => {
    for (let dueAt = performance.now(); working; dueAt += CANARY_MS) {
      await delay(Math.max(0, dueAt - performance.now()));
      await ask();
      times.push(performance.now() - dueAt);
    }
  })();
  try {
    await work();
    working = false;
    await asking;
    return quantile(times, 0.99);
  } finally {
    working = false;
    channel.close();
  }
}

function bodiesOf<M extends DescMessage>(schema: M, of: (index: number) => MessageInitShape<M>): string[] {
  return Array.from({ length: CUSTOMERS }, (_, index) =>
    Buffer.from(toBinary(schema, create(schema, of(index)))).toString("base64"),
  );
}
