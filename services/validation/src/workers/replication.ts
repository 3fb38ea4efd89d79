import { once } from "node:events";
import type { Client } from "@connectrpc/connect";
import { ProductCatalogSchema } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { EntitlementSnapshotSchema } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import type { Snapshot } from "@licet/decide/entitlement";
import { toCatalog, toSnapshot } from "@licet/decide/from-wire";
import type { EventBus, Position, Subscription } from "@licet/platform/events/bus";
import { topicOf } from "@licet/platform/events/cloudevent";
import { createConsumer } from "@licet/platform/events/consumer";
import type { Logger } from "@licet/platform/logging";
import type { Context } from "../context.ts";
import { calibrate } from "./calibration.ts";
import { followUsage } from "./usage.ts";

/** What {@link replicate} needs beside the context. */
export interface ReplicationOptions {
  readonly bus: EventBus;
  readonly licensing: Client<typeof LicensingService>;
  readonly logger: Logger;
  /** Ends the reading of the snapshots and the wait for the log. */
  readonly signal: AbortSignal;
}

/**
 * Fills the caches and keeps them up to date, without a gap: the log's end is
 * noted first, then the clock is compared with licensing's, then licensing is asked for all there is, then the log is read
 * from the noted place. What is in both is applied twice; versions make that
 * harmless. Resolves, with what goes on following, once everything that was
 * published before has been applied; rejects, with nothing left behind, when
 * licensing or the log can't be reached.
 */
export async function replicate(ctx: Context, options: ReplicationOptions): Promise<Subscription[]> {
  const { signal } = options;
  const from = await loadSnapshots(ctx, options);
  const started: Subscription[] = [];
  try {
    started.push(await followCatalogs(ctx, options, from));
    started.push(await followSnapshots(ctx, options, from));
    started.push(await followUsage(ctx, options.bus, options.logger));
    const caughtUp = Promise.all(started.map((subscription) => subscription.caughtUp()));
    await Promise.race([caughtUp, abortion(signal)]);
    ctx.watches.admit();
    return started;
  } catch (error) {
    await Promise.allSettled(started.map((subscription) => subscription.stop()));
    throw error;
  }
}

/** Rejects once the signal is aborted. */
async function abortion(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, "abort");
  throw signal.reason;
}

/** Reads all that licensing knows now, and returns the places in the log from where on there may be more. */
async function loadSnapshots(ctx: Context, { bus, licensing, signal }: ReplicationOptions): Promise<Position[]> {
  const from = await bus.endOffsets([topicOf(ProductCatalogSchema).name, topicOf(EntitlementSnapshotSchema).name]);
  // After the places and before the snapshots: what is committed later is in the log from there on, the rest is read now.
  const databaseMs = await calibrate(ctx.licensingClock, licensing);
  ctx.snapshots.completeFrom(databaseMs);
  for await (const part of licensing.streamEntitlementSnapshots({}, { signal })) {
    for (const catalog of part.catalogs) ctx.catalogs.apply(toCatalog(catalog));
    for (const snapshot of part.snapshots) ctx.snapshots.apply(toSnapshot(snapshot));
  }
  ctx.freshness.begin(databaseMs);
  ctx.watches.changes.begin(databaseMs);
  return from;
}

function followCatalogs(
  ctx: Context,
  { bus, logger }: ReplicationOptions,
  from: readonly Position[],
): Promise<Subscription> {
  return createConsumer({
    bus,
    desc: ProductCatalogSchema,
    reader: { kind: "all", from },
    apply: async (messages) => {
      for (const { message } of messages) {
        const catalog = toCatalog(message);
        ctx.catalogs.apply(catalog);
        ctx.watches.productChanged(catalog);
      }
    },
    logger,
  });
}

function followSnapshots(
  ctx: Context,
  { bus, logger }: ReplicationOptions,
  from: readonly Position[],
): Promise<Subscription> {
  return createConsumer({
    bus,
    desc: EntitlementSnapshotSchema,
    reader: { kind: "all", from },
    apply: async (messages) => {
      for (const { message } of messages) applySnapshot(ctx, toSnapshot(message));
    },
    onHeartbeat({ partition, issuedAt }) {
      ctx.freshness.heard(partition, issuedAt.getTime());
      ctx.watches.changes.heard(partition, issuedAt.getTime());
    },
    logger,
  });
}

function applySnapshot(ctx: Context, snapshot: Snapshot): void {
  const isNews = ctx.snapshots.apply(snapshot);
  ctx.states.told(snapshot, isNews && ctx.watches.size > 0);
  // Also of what a look-up has brought before: watches have not heard of that.
  ctx.watches.customerChanged(snapshot);
}
