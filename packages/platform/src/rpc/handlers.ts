import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { Credential } from "../credentials.ts";
import type { Call } from "./call.ts";
import type { HandDecoder } from "./encoded.ts";

/** What serves one method. */
type MethodHandler<M extends DescMethod, Ctx> =
  M extends DescMethodUnary<infer I, infer O>
    ? (ctx: Ctx, call: Call, request: MessageShape<I>) => Promise<MessageInitShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (ctx: Ctx, call: Call, request: MessageShape<I>) => AsyncIterable<MessageInitShape<O>>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? (ctx: Ctx, call: Call, requests: AsyncIterable<MessageShape<I>>) => Promise<MessageInitShape<O>>
        : M extends DescMethodBiDiStreaming<infer I, infer O>
          ? (ctx: Ctx, call: Call, requests: AsyncIterable<MessageShape<I>>) => AsyncIterable<MessageInitShape<O>>
          : never;

/**
 * One handler per method of a service, by its local name; one left out does not
 * compile. A streaming answer is an async iterable: it is pulled as fast as the
 * caller reads, and its `finally` blocks run when the caller leaves.
 */
export type Handlers<S extends DescService, Ctx> = { [K in keyof S["method"]]: MethodHandler<S["method"][K], Ctx> };

/** One entry of {@link Handlers}: the type of a file that holds one RPC. */
export type Handler<S extends DescService, K extends keyof S["method"], Ctx> = Handlers<S, Ctx>[K];

/** A handler whose method is known only at run time, bound to its context. */
export type AnyHandler = (
  call: Call,
  request: MessageShape<DescMessage> | AsyncIterable<MessageShape<DescMessage>>,
) => Promise<MessageInitShape<DescMessage>> | AsyncIterable<MessageInitShape<DescMessage>>;

/**
 * Answers a unary call at once, from the bytes of its request, when all that it takes is in memory; undefined, and nothing
 * has happened, when it is not, or when the request is unusual in any way: then the call goes the general way, to the
 * method's handler. It must answer what that would, never wait, and make nothing that would have to be undone.
 */
export type ShortcutHandler = (credential: Credential, request: Uint8Array) => Uint8Array | undefined;

/** What makes methods fast; by their local names, and a method has none, one or both. */
export interface Shortcuts {
  readonly decoders?: Readonly<Record<string, HandDecoder>>;
  readonly handlers?: Readonly<Record<string, ShortcutHandler>>;
}

/** A service and what serves it, as the transports take it. */
export interface ServiceBinding {
  readonly service: DescService;
  /** One handler per method, by its local name. */
  readonly implementation: Readonly<Record<string, AnyHandler>>;
  /** Whether anyone may call it without a credential: health and reflection. */
  readonly open?: boolean;
  readonly shortcuts?: Shortcuts;
}

/**
 * Binds handlers, which live in files of their own, to the context that they share.
 *
 * @param context the context, or what it is for each method.
 */
export function implement<S extends DescService, Ctx>(
  service: S,
  context: Ctx | ((method: DescMethod) => Ctx),
  handlers: Handlers<S, Ctx>,
): ServiceBinding {
  const contextOf = typeof context === "function" ? (context as (method: DescMethod) => Ctx) : () => context;
  const byName = handlers as Record<string, (ctx: Ctx, ...rest: Parameters<AnyHandler>) => ReturnType<AnyHandler>>;
  const implementation: Record<string, AnyHandler> = {};
  for (const method of service.methods) {
    const { localName } = method;
    const handler = byName[localName];
    if (handler === undefined) throw new Error(`${service.typeName}: no handler for ${localName}`);
    const ctx = contextOf(method);
    implementation[localName] = (call, request) => handler(ctx, call, request);
  }
  return { service, implementation };
}
