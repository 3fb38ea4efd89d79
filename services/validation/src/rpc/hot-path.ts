import { create, toBinary } from "@bufbuild/protobuf";
import {
  CheckFeaturesResponseSchema,
  type ValidateFeatureRequest,
  ValidateFeatureResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { decide, type Facts, type Outcome } from "@licet/decide/decide";
import type { Usage } from "@licet/decide/entitlement";
import { usageStalenessMs } from "@licet/decide/usage";
import { toBuffer } from "@licet/platform/rpc/hand-decoding";
import type { FoundSnapshot } from "../cache/snapshots.ts";
import type { Context } from "../context.ts";
import { toCounts } from "../metrics.ts";
import { checkColumns, toColumnsResponse } from "./columns.ts";
import { toQuestion, toResponse } from "./convert.ts";
import { createFeatureLists, type FeatureList } from "./feature-lists.ts";
import { customerBefore, decodeQuestion, endOfCustomer } from "./hand-decoder.ts";
import { createMemo } from "./memo.ts";
import { holds, type Prepared, type Reply, toBytes, weightOf } from "./prepared.ts";

/** The most memory that prepared replies take up, in bytes, about: for single features, and for lists of them. */
const MAX_REPLY_BYTES = 32 * 1024 * 1024;
const MAX_COLUMN_BYTES = 16 * 1024 * 1024;

const codePattern = /^[a-z0-9][a-z0-9_.-]{0,62}$/;

/**
 * Answers from memory at once. A reply is worked out and encoded once for each customer and feature; it is dropped when the
 * customer's version or usage, the tenant's catalogues or the clock end it, or as the oldest of too many. Where a question asks
 * for more, or the facts are not in memory or too old, it says undefined, and the handlers answer.
 */
export interface HotPath {
  /** ValidateFeature, for whoever measures how long it takes. The customer's id and the feature's code must keep the contract's rules. */
  answer(tenant: string, request: ValidateFeatureRequest): Reply | undefined;
  /** ValidateFeature, from the request's bytes. */
  validateFeature(tenant: string, request: Uint8Array): Uint8Array | undefined;
  /** CheckFeatures, from the request's bytes. */
  checkFeatures(tenant: string, request: Uint8Array): Uint8Array | undefined;
}

/** Starts with nothing prepared. */
export function createHotPath(ctx: Context): HotPath {
  const replies = createMemo<Prepared>(MAX_REPLY_BYTES);
  const columns = createMemo<Prepared>(MAX_COLUMN_BYTES);
  const lists = createFeatureLists();

  const answer: HotPath["answer"] = (tenant, request) => {
    if (!isPlain(request)) return undefined;
    const { customerId, feature, context, atLeast } = request;
    const found = ctx.snapshots.findNow(tenant, customerId);
    const version = found?.snapshot?.version;
    if (found === undefined || version === undefined) return undefined;
    if (atLeast !== undefined && atLeast.version > version) return undefined;
    const facts = factsOf(ctx, tenant, customerId, found);
    const nowMs = ctx.now();
    const key = `${tenant}/${feature}/${context.product ?? ""}/${customerId}`;
    let prepared = replies.get(key);
    if (prepared === undefined || !holds(prepared, version, facts, nowMs)) {
      prepared = prepareReply(request, found, facts, nowMs);
      replies.set(key, prepared, weightOf(key, prepared));
    }
    return tell(ctx, prepared, found, facts.usage, nowMs);
  };

  const check = (tenant: string, customerId: string, list: FeatureList): Reply | undefined => {
    const found = ctx.snapshots.findNow(tenant, customerId);
    const version = found?.snapshot?.version;
    if (found === undefined || version === undefined) return undefined;
    const facts = factsOf(ctx, tenant, customerId, found);
    const nowMs = ctx.now();
    const key = `${list.id}/${tenant}/${customerId}`;
    let prepared = columns.get(key);
    if (prepared === undefined || !holds(prepared, version, facts, nowMs)) {
      prepared = prepareColumns(customerId, list, found, facts, nowMs);
      columns.set(key, prepared, weightOf(key, prepared));
    }
    return tell(ctx, prepared, found, facts.usage, nowMs);
  };

  const timed =
    (reply: (tenant: string, request: Uint8Array) => Reply | undefined) =>
    (tenant: string, request: Uint8Array): Uint8Array | undefined => {
      const begunAt = performance.now();
      const told = reply(tenant, request);
      if (told === undefined) return undefined;
      ctx.metrics.took((performance.now() - begunAt) / 1_000);
      return toBytes(told);
    };

  return {
    answer,
    validateFeature: timed((tenant, bytes) => {
      const request = decodeQuestion(bytes);
      return request && answer(tenant, request);
    }),
    checkFeatures: timed((tenant, request) => {
      const bytes = toBuffer(request);
      const end = endOfCustomer(bytes);
      if (end === undefined) return undefined;
      const customerId = customerBefore(bytes, end);
      const list = lists.of(bytes, end);
      return customerId === undefined || list === undefined ? undefined : check(tenant, customerId, list);
    }),
  };
}

/** The facts of a snapshot that is young enough. */
function factsOf(ctx: Context, tenant: string, customerId: string, { snapshot, stalenessMs }: FoundSnapshot): Facts {
  const usage = ctx.usage.of(tenant, customerId);
  return { snapshot, catalogs: ctx.catalogs.of(tenant), usage, overdueMs: stalenessMs - ctx.fenceMs };
}

/** Counts a reply as the handlers count theirs, and adds the ages of its facts. */
function tell(
  ctx: Context,
  { encoded, counts, comparedUsage }: Prepared,
  { stalenessMs }: FoundSnapshot,
  usage: Usage | undefined,
  nowMs: number,
): Reply {
  ctx.metrics.lookedUp(true);
  ctx.metrics.answered(counts);
  return {
    encoded,
    stalenessMs: Math.ceil(stalenessMs),
    usageStalenessMs: comparedUsage && usage !== undefined ? usageStalenessMs(usage, nowMs) : undefined,
  };
}

/** Whether a question asks for nothing but what replies are prepared for. */
function isPlain({ customerId, context, consume, atLeast, explain }: ValidateFeatureRequest): boolean {
  if (explain || (atLeast !== undefined && atLeast.customerId !== customerId)) return false;
  for (const _ in consume) return false;
  for (const name in context) {
    if (name !== "product" || !codePattern.test(context[name] ?? "")) return false;
  }
  return true;
}

function prepareReply(request: ValidateFeatureRequest, found: FoundSnapshot, facts: Facts, nowMs: number): Prepared {
  const outcome = decide(toQuestion(request), facts, nowMs);
  const timeless = { found: { ...found, stalenessMs: 0 }, degraded: false, usage: undefined, nowMs };
  const response = toResponse({ outcome, explanation: undefined, ...timeless });
  const message = create(ValidateFeatureResponseSchema, response);
  return {
    encoded: toText(toBinary(ValidateFeatureResponseSchema, message)),
    version: message.version,
    ...prepared(outcome, [outcome], facts, nowMs),
  };
}

function prepareColumns(
  customerId: string,
  { features }: FeatureList,
  found: FoundSnapshot,
  facts: Facts,
  nowMs: number,
): Prepared {
  const columns = checkColumns({ customerId, product: undefined, values: noValues }, features, facts, nowMs);
  const timeless = { found: { ...found, stalenessMs: 0 }, degraded: false, usage: undefined, nowMs };
  const message = create(CheckFeaturesResponseSchema, toColumnsResponse({ columns, ...timeless }));
  return {
    encoded: toText(toBinary(CheckFeaturesResponseSchema, message)),
    version: message.version,
    ...prepared(columns, columns.outcomes, facts, nowMs),
  };
}

const noValues: ReadonlyMap<string, string> = new Map();

function prepared(
  { comparedUsage, holdsUntilMs }: Pick<Outcome, "comparedUsage" | "holdsUntilMs">,
  outcomes: readonly Outcome[],
  { catalogs, usage }: Facts,
  nowMs: number,
): Omit<Prepared, "encoded" | "version"> {
  const counts = toCounts(outcomes);
  return { counts, catalogs, levels: usage?.levels, comparedUsage, fromMs: nowMs, untilMs: holdsUntilMs };
}

function toText(bytes: Uint8Array): string {
  return toBuffer(bytes).toString("latin1");
}
