import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
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
/** How long a caller of the probe waits, in milliseconds: far less than a handler that waits for its database. */
const PATIENCE_MS = 300;

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
  const attempt = (): Promise<string> =>
    client.getLicense({ licenseId }, { timeoutMs: PATIENCE_MS }).then(
      () => "OK",
      (error: unknown) => outcomeOf(error).code,
    );
  try {
    // The key is known from then on: it is not asked of the database.
    await insist(() => client.getLicense({ licenseId }), AbortSignal.timeout(30_000));
    for (const proxy of proxies) proxy.freeze();
    await Promise.all(Array.from({ length: MAX_CONCURRENT }, attempt));
    await delay(PATIENCE_MS);
    const answers = await Promise.all(Array.from({ length: CALLS_TOO_MANY }, attempt));
    const taken = answers.filter((answer) => answer !== "UNAVAILABLE OVERLOADED");
    // A refusal can come too late on a machine that has much to do.
    if (taken.length > CALLS_TOO_MANY / 2) {
      findings.add("slots", `${taken.length} of ${CALLS_TOO_MANY} calls too many were taken: ${[...new Set(taken)]}`);
    }
  } finally {
    for (const proxy of proxies) proxy.restore();
    channel.close();
  }
}
