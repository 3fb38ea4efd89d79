import { createHash } from "node:crypto";
import {
  create,
  type DescMessage,
  fromBinary,
  type JsonValue,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { sql, type Transaction } from "kysely";
import type { Vault } from "./crypto.ts";
import { asSystem, type Databases, inTenant } from "./database/database.ts";
import { keepPlan } from "./database/session.ts";
import { platformError } from "./errors.ts";
import type { Call } from "./rpc/call.ts";

/**
 * What the database of a service that uses {@link runOnce} must have: the table `idempotency (tenant_id text, method text,
 * key text, request_hash bytea, reply bytea DEFAULT '', encrypted boolean DEFAULT false, created_at timestamptz DEFAULT
 * now(), PRIMARY KEY (tenant_id, method, key))` under row-level security, created by a migration of the service.
 */
export interface IdempotencyTables {
  idempotency: unknown;
}

/** How long a repetition is recognised. */
const KEPT_DAYS = 30;

interface StoredReply {
  readonly request_hash: Uint8Array;
  readonly reply: Uint8Array;
  readonly encrypted: boolean;
}

/**
 * Carries out a call with a `request_id` once: the effect of `work`, the key and the reply commit together. A repetition
 * gets the stored reply and has no effect; one that arrives while the first is still running waits for it. Only success is
 * stored: after an error the same key may be tried again. Nothing is begun once the call's signal is aborted.
 *
 * @param work runs in the transaction of the call's tenant, and must leave it in that tenant; see `inTenant` about being run
 * again.
 * @param options.secret encrypts the stored reply; give it where a reply holds a secret.
 * @throws ServiceError REQUEST_ID_REUSED when the key came with another request before, compared without `request_id`.
 */
export async function runOnce<DB extends IdempotencyTables, O extends DescMessage>(
  databases: Databases<DB>,
  call: Pick<Call, "tenant" | "service" | "method" | "signal">,
  request: Message & { readonly requestId: string },
  reply: O,
  work: (tx: Transaction<DB>) => Promise<MessageInitShape<O>>,
  options: { readonly secret?: Vault } = {},
): Promise<MessageShape<O>> {
  const { tenant } = call;
  const method = `${call.service.typeName}/${call.method.name}`;
  const key = request.requestId;
  const place = `${tenant}|idempotency|reply|${method}|${key}`;
  const hash = hashRequest(call.method.input, request);
  const claimAndWork = async (tx: Transaction<DB>): Promise<MessageShape<O>> => {
    const claimed = await sql`
      INSERT INTO idempotency (tenant_id, method, key, request_hash) VALUES (${tenant}, ${method}, ${key}, ${hash})
      ON CONFLICT DO NOTHING ${keepPlan}`.execute(tx);
    if (claimed.numAffectedRows === 0n) {
      const stored = await load(tx, tenant, method, key);
      if (!hash.equals(stored.request_hash)) throw reused();
      return fromBinary(reply, stored.encrypted ? vaultOf(options, method).open(stored.reply, place) : stored.reply);
    }
    const message = create(reply, await work(tx));
    const bytes = toBinary(reply, message);
    const value = options.secret === undefined ? bytes : options.secret.seal(bytes, place);
    const stored = await sql`
      UPDATE idempotency SET reply = ${value}, encrypted = ${options.secret !== undefined}
      WHERE tenant_id = ${tenant} AND method = ${method} AND key = ${key} ${keepPlan}`.execute(tx);
    if (stored.numAffectedRows !== 1n)
      throw new Error(`${method} left the transaction in another tenant than its call's`);
    return message;
  };
  return inTenant(databases, tenant, claimAndWork, { signal: call.signal });
}

/**
 * Deletes up to `limit` rows older than 30 days, of all tenants.
 * @returns how many were deleted; fewer than `limit` means that none is left.
 */
export async function purgeIdempotency<DB extends IdempotencyTables>(
  databases: Databases<DB>,
  limit: number,
): Promise<number> {
  const deleted = await asSystem(databases, (tx) =>
    sql`
      DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM idempotency WHERE created_at < now() - make_interval(days => ${KEPT_DAYS})
        ORDER BY created_at LIMIT ${limit}))`.execute(tx),
  );
  return Number(deleted.numAffectedRows ?? 0n);
}

async function load<DB>(tx: Transaction<DB>, tenant: string, method: string, key: string): Promise<StoredReply> {
  const { rows } = await sql<StoredReply>`
    SELECT request_hash, reply, encrypted FROM idempotency
    WHERE tenant_id = ${tenant} AND method = ${method} AND key = ${key}`.execute(tx);
  const [row] = rows;
  // Purged between the two statements, after 30 days.
  if (row === undefined)
    throw platformError("CONFLICT_RETRY", "the request id has just expired: send the request again");
  return row;
}

function vaultOf(options: { readonly secret?: Vault }, method: string): Vault {
  if (options.secret === undefined) throw new Error(`${method} has encrypted replies, but runOnce was given no vault`);
  return options.secret;
}

function reused(): Error {
  const description = "was used before with a different request: use a new one, or repeat the first request unchanged";
  return platformError("REQUEST_ID_REUSED", `request_id: ${description}`, {
    violations: [{ field: "request_id", description }],
  });
}

/** SHA-256 of the request without its `request_id`, as JSON with sorted keys: protobuf's binary form keeps no order of maps. */
function hashRequest(schema: DescMessage, request: Message): Buffer {
  const json = toJson(schema, request);
  const body = isObject(json) ? { ...json, requestId: null } : json;
  return createHash("sha256").update(canonical(body)).digest();
}

function canonical(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const members = Object.keys(value).sort();
  return `{${members.map((name) => `${JSON.stringify(name)}:${canonical(value[name] ?? null)}`).join(",")}}`;
}

function isObject(value: JsonValue): value is { [name: string]: JsonValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
