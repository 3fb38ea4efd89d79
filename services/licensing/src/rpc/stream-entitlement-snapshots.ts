import type { LicensingService } from "@licet/contracts/licet/licensing/v1/licensing_service_pb";
import { asSystem, inTenant } from "@licet/platform/database/database";
import type { Handler } from "@licet/platform/rpc/handlers";
import type { Transaction } from "kysely";
import type { Context } from "../context.ts";
import { listCatalogs } from "../store/catalog.ts";
import type { DB } from "../store/schema.ts";
import { listSnapshots, type Snapshot } from "../store/snapshots.ts";
import { catalogToProto, snapshotToProto } from "./convert.ts";

/** How many snapshots are read at once. */
const PER_READ = 50;
/** What keeps a message below the 4 MiB that gRPC clients take: a catalogue has 140 KiB at most, a license 150 KiB. */
const CATALOGS_PER_MESSAGE = 20;
const LICENSES_PER_MESSAGE = 20;

/**
 * Sends all catalogues and then all snapshots, each batch read in a transaction of its own: what changes meanwhile
 * reaches the receiver by the event topics, whose positions it noted before.
 */
export const streamEntitlementSnapshots: Handler<typeof LicensingService, "streamEntitlementSnapshots", Context> =
  async function* (ctx, _call, { tenantId: tenant }) {
    // Under the app role the rows are those of the transaction's tenant.
    const read = <T>(load: (tx: Transaction<DB>) => Promise<T>): Promise<T> =>
      tenant === "" ? asSystem(ctx.db, load) : inTenant(ctx.db, tenant, load, { readOnly: true });
    let afterProduct = { tenantId: "", product: "" };
    for (;;) {
      const catalogs = await read((tx) => listCatalogs(tx, afterProduct, CATALOGS_PER_MESSAGE));
      const last = catalogs.at(-1);
      if (!last) break;
      yield { catalogs: catalogs.map(catalogToProto) };
      afterProduct = last;
    }
    let afterCustomer = { tenantId: "", customerId: "" };
    for (;;) {
      const snapshots = await read((tx) => listSnapshots(tx, afterCustomer, PER_READ));
      const last = snapshots.at(-1);
      if (!last) break;
      for (const message of inMessages(snapshots)) yield { snapshots: message.map(snapshotToProto) };
      afterCustomer = last;
    }
  };

/** Cuts snapshots into messages of so many licenses; one that has more (900 KiB at most, whatever it holds) goes alone. */
export function inMessages(snapshots: readonly Snapshot[]): Snapshot[][] {
  const messages: Snapshot[][] = [];
  let licenses = 0;
  for (const snapshot of snapshots) {
    const size = Math.max(snapshot.licenses.length, 1);
    const message = messages.at(-1);
    if (message && licenses + size <= LICENSES_PER_MESSAGE) {
      message.push(snapshot);
      licenses += size;
    } else {
      messages.push([snapshot]);
      licenses = size;
    }
  }
  return messages;
}
