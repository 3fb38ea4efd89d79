import { setTimeout as delay } from "node:timers/promises";
import { type CallOptions, createClient } from "@connectrpc/connect";
import { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { openDatabase } from "@licet/platform/database/database";
import { createChannel } from "@licet/platform/rpc/client";
import { isolationBreaches } from "@licet/platform/testing/isolation";
import { insist, outcomeOf } from "./caller.ts";
import type { Findings } from "./findings.ts";
import { tenants } from "./model.ts";
import type { Scene } from "./setting-up.ts";
import { MAX_CONCURRENT, type Stage } from "./stage.ts";

/** Calls beside those that take all slots; all of them must be refused. */
const CALLS_TOO_MANY = 32;
/** How long a caller of the probe waits for a refusal, in milliseconds. */
const PATIENCE_MS = 1_500;
/** Within which a replica sees that its callers left, in milliseconds; one that is slower is less sure to be caught. */
const SEEN_TO_LEAVE_MS = 300;
/** How long handlers wait for their database at least, and so keep their slots, in milliseconds. */
const HELD_MS = 4_000;
/** How often it is tried, on a machine that is too slow to have asked everything meanwhile. */
const TRIES = 5;

/** Raw SQL as the app role, without a tenant, must show no row. */
export async function probeIsolation({ databases }: Stage, findings: Findings): Promise<void> {
  for (const name of ["licensing", "metering"] as const) {
    const url = databases.url(name, "licet_app");
    const app = openDatabase({ url, applicationName: "chaos", maxConnections: 1 });
    try {
      for (const breach of await isolationBreaches({ databases: { app } }))
        findings.add("isolation", `${name}: ${breach}`);
    } finally {
      await app.destroy();
    }
  }
}

/**
 * Callers give up while their handlers wait for a database that does not answer: the handlers keep their slots, so further
 * callers are refused. A slot that is freed with its caller would let any number of handlers pile up.
 */
export async function probeSlots(stage: Stage, { place, licenses }: Scene, findings: Findings): Promise<void> {
  const replica = stage.replicas.find(({ name }) => name === "licensing-1");
  const proxies = stage.links.get("licensing-1>postgres") ?? [];
  if (replica === undefined) throw new Error("there is no licensing-1");
  const [tenant] = tenants;
  const channel = createChannel({ address: stage.address(replica), credential: place.keys[tenant] ?? "" });
  const client = createClient(LicensingService, channel);
  const licenseId = Object.entries(licenses).find(([owner]) => owner.startsWith(`${tenant}/`))?.[1] ?? "";
  const attempt = (options: CallOptions): Promise<string> =>
    client.getLicense({ licenseId }, options).then(
      () => "OK",
      (error: unknown) => outcomeOf(error).code,
    );
  const refused = "UNAVAILABLE OVERLOADED";
  /** What calls beyond all slots are answered, other than refusals; undefined when slots may have become free meanwhile. */
  const round = async (): Promise<string[] | undefined> => {
    const leaving = new AbortController();
    const begunAt = performance.now();
    const inTime = () => performance.now() - begunAt < HELD_MS;
    try {
      for (const proxy of proxies) proxy.freeze();
      const leavers = Array.from({ length: MAX_CONCURRENT }, () => attempt({ signal: leaving.signal }));
      while ((await attempt({ timeoutMs: PATIENCE_MS })) !== refused) if (!inTime()) return undefined;
      leaving.abort();
      await Promise.all(leavers);
      await delay(SEEN_TO_LEAVE_MS);
      const calls = Array.from({ length: CALLS_TOO_MANY }, () => attempt({ timeoutMs: PATIENCE_MS }));
      const taken = (await Promise.all(calls)).filter((answer) => answer !== refused);
      return inTime() ? taken : undefined;
    } finally {
      leaving.abort();
      for (const proxy of proxies) proxy.restore();
    }
  };
  try {
    let taken: string[] | undefined;
    for (let tries = 0; taken === undefined && tries < TRIES; tries++) {
      // The key is known from then on: it is not asked of the database.
      await insist(() => client.getLicense({ licenseId }), AbortSignal.timeout(30_000));
      taken = await round();
    }
    if (taken === undefined) findings.add("slots", `the calls took longer than ${HELD_MS} ms, ${TRIES} times`);
    else if (taken.length > 0) {
      findings.add("slots", `${taken.length} of ${CALLS_TOO_MANY} calls too many were taken: ${[...new Set(taken)]}`);
    }
  } finally {
    channel.close();
  }
}
