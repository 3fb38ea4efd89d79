import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  getOption,
  hasOption,
  type Message,
  type MessageInitShape,
} from "@bufbuild/protobuf";
import type { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { deadline_ms, max_request_bytes, required_scope } from "@licet/contracts/licet/options/v1/options_pb";
import type { Credential } from "../credentials.ts";
import type { ServiceError } from "../errors.ts";
import { unlessAborted } from "./abort.ts";
import { callerAddress, type TrustedProxies } from "./address.ts";
import { Encoded } from "./encoded.ts";
import { type Patience, untilTaken } from "./until-taken.ts";

/** The deadline in milliseconds of a unary method that declares none. */
const DEFAULT_DEADLINE_MS = 5_000;
/** The largest request message in bytes of a method that declares none. */
const DEFAULT_MAX_REQUEST_BYTES = 64 * 1024;

/**
 * The scope of methods that anyone may call without a credential, because what proves the caller's right, if anything has
 * to, is in the message.
 */
const PUBLIC_SCOPE = "public";

/** How a call came in. */
export type TransportName = "grpc" | "connect" | "grpc-web" | "local";

/** What a method's options say about how it is called. */
export interface MethodPolicy {
  /** The scope that a credential must hold; a method without one is denied to everyone. */
  readonly scope: string | undefined;
  /** Unary: the longest a call may take. Streaming: the session's maximum age. In milliseconds; 0 is unlimited. */
  readonly deadlineMs: number;
  /** The largest request message, in bytes. */
  readonly maxRequestBytes: number;
  /** Whether a repetition does harm; decides about retries. */
  readonly idempotency: MethodOptions_IdempotencyLevel;
}

/** The full name of a method, `licet.area.v1.Service/Method`: its path without the leading slash. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

/** Reads the policy of a method from its options in the contract. */
export function readPolicy(method: DescMethod): MethodPolicy {
  return {
    scope: getOption(method, required_scope) || undefined,
    deadlineMs: hasOption(method, deadline_ms)
      ? getOption(method, deadline_ms)
      : method.methodKind === "unary"
        ? DEFAULT_DEADLINE_MS
        : 0,
    maxRequestBytes: getOption(method, max_request_bytes) || DEFAULT_MAX_REQUEST_BYTES,
    idempotency: method.idempotency,
  };
}

/** Whether anyone may call a method without a credential. */
export function isPublic(method: DescMethod): boolean {
  return readPolicy(method).scope === PUBLIC_SCOPE;
}

/** One call as its handler sees it. */
export interface Call {
  /** The method's full name, `licet.area.v1.Service/Method`. */
  readonly name: string;
  readonly service: DescService;
  readonly method: DescMethod;
  readonly policy: MethodPolicy;
  readonly transport: TransportName;
  /** What the caller sent beside its messages; binary values (`-bin`) are base64. */
  readonly headers: Headers;
  /** Sent before the first message. */
  readonly responseHeaders: Headers;
  /** Sent after the last message, also when the call fails. */
  readonly responseTrailers: Headers;
  /** The address and port at the other end of the connection, for logs. */
  readonly peer: string;
  /** The caller's IP address; empty for a call inside the process. Behind a proxy that is trusted it is what the proxy tells. */
  readonly address: string;
  /** Aborted when nobody waits for the answer any more; its reason is a ServiceError with CANCELLED, DEADLINE_EXCEEDED or SHUTTING_DOWN. */
  readonly signal: AbortSignal;
  /** When the answer must be there, in epoch milliseconds; undefined: no deadline. */
  readonly deadlineAt: number | undefined;
  /** Who calls. Throws in methods that are open to everyone: they have no caller to speak of. */
  readonly credential: Credential;
  /** Whose data the call reads and writes: the credential's tenant. Throws as `credential` does. */
  readonly tenant: string;
  /** Ends the call early with this answer, also while its handler waits for a reader that takes nothing. */
  abort(reason: ServiceError): void;
  /** Has the call end when its reader leaves a message of the answer untaken for too long; without it a handler waits. */
  cutOff(slowReader: Patience): void;
}

/** What a transport hands to the pipeline: the call's circumstances, and the messages both ways. */
export interface Exchange {
  readonly transport: TransportName;
  readonly headers: Headers;
  readonly peer: string;
  /** The deadline that the caller set, in epoch milliseconds. */
  readonly deadlineAt: number | undefined;
  /**
   * Decodes the request, or, where the method takes a stream, the requests as
   * they arrive. Called once, after the caller was let in.
   *
   * @throws {ServiceError} MALFORMED_MESSAGE, INVALID_FIELD or MESSAGE_TOO_LARGE.
   */
  receive(): Message | Promise<Message> | AsyncIterable<Message>;
  /** Sends one message of the answer; the promise settles when the transport takes the next one. */
  send(message: Message): void | Promise<void>;
  /** As `send`, for a message in protobuf's binary format; absent where messages go out in another one. */
  sendEncoded?(bytes: Uint8Array): void | Promise<void>;
}

/** A call on its way through the pipeline: what the middlewares read and write. */
export class ServerCall implements Call {
  readonly name: string;
  readonly method: DescMethod;
  readonly policy: MethodPolicy;
  readonly exchange: Exchange;
  deadlineAt: number | undefined;
  readonly #proxies: TrustedProxies | undefined;
  /** What the handler gets: the decoded request, or the stream of them. Set by the validation middleware. */
  input: Message | AsyncIterable<Message> | undefined;
  /**
   * The handler's work, when the call was answered before it ended (deadline,
   * cancellation, shutdown). It still takes up the process, so the overload
   * slot waits for it.
   */
  abandoned: Promise<void> | undefined;
  /** Proves the caller once more; set by the authentication middleware. @throws {ServiceError} when it can't any more. */
  proveAgain: (() => Promise<void>) | undefined;
  #controller = new AbortController();
  #patience: Patience | undefined;
  #credential: Credential | undefined;
  #responseHeaders: Headers | undefined;
  #responseTrailers: Headers | undefined;

  constructor(name: string, method: DescMethod, policy: MethodPolicy, exchange: Exchange, proxies?: TrustedProxies) {
    this.name = name;
    this.method = method;
    this.policy = policy;
    this.exchange = exchange;
    this.deadlineAt = exchange.deadlineAt;
    this.#proxies = proxies;
  }

  get service(): DescService {
    return this.method.parent;
  }

  get transport(): TransportName {
    return this.exchange.transport;
  }

  get headers(): Headers {
    return this.exchange.headers;
  }

  get peer(): string {
    return this.exchange.peer;
  }

  get address(): string {
    return callerAddress(this.peer, this.headers, this.#proxies);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get responseHeaders(): Headers {
    this.#responseHeaders ??= new Headers();
    return this.#responseHeaders;
  }

  get responseTrailers(): Headers {
    this.#responseTrailers ??= new Headers();
    return this.#responseTrailers;
  }

  /** The response headers when a handler touched them: most calls have none and need not pay for them. */
  get sentHeaders(): Headers | undefined {
    return this.#responseHeaders;
  }

  /** The response trailers when a handler touched them. */
  get sentTrailers(): Headers | undefined {
    return this.#responseTrailers;
  }

  get credential(): Credential {
    if (this.#credential === undefined) {
      throw new Error(`${this.name} is open to everyone and has no credential`);
    }
    return this.#credential;
  }

  set credential(credential: Credential) {
    this.#credential = credential;
  }

  get tenant(): string {
    return this.credential.tenant;
  }

  /** Ends the call early: the signal is aborted and, where somebody still waits, `reason` is the answer. The first reason counts. */
  abort(reason: ServiceError): void {
    this.#controller.abort(reason);
  }

  cutOff(slowReader: Patience): void {
    this.#patience = slowReader;
  }

  /**
   * Sends one message of the answer and waits until the transport takes the
   * next one, so a slow reader slows its handler down.
   *
   * @throws {ServiceError} the reason of the signal when the call was aborted.
   */
  async send(reply: MessageInitShape<DescMessage>): Promise<void> {
    this.signal.throwIfAborted();
    const sent = this.#hand(reply);
    if (sent === undefined) return;
    await (this.#patience === undefined ? unlessAborted(this.signal, sent) : untilTaken(this, this.#patience, sent));
  }

  #hand(reply: MessageInitShape<DescMessage>): void | Promise<void> {
    const { exchange, method } = this;
    if (!(reply instanceof Encoded)) return exchange.send(create(method.output, reply));
    if (exchange.sendEncoded !== undefined) return exchange.sendEncoded(reply.bytes);
    return exchange.send(fromBinary(method.output, reply.bytes));
  }
}

/**
 * A step around every call: does its part, calls `next` once for the rest of
 * the way, and sees it settle when the call is over. A stream's whole life is
 * inside `next`.
 */
export type Middleware = (call: ServerCall, next: () => Promise<void>) => Promise<void>;
