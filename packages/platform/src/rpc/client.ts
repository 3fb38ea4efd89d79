import type { Readable, Writable } from "node:stream";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { CallOptions, StreamResponse, Transport, UnaryResponse } from "@connectrpc/connect";
import * as grpc from "@grpc/grpc-js";
import { platformError, type ServiceError } from "../errors.ts";
import { type Call, methodName, readPolicy } from "./call.ts";
import { fromGrpcStatus, fromMetadata, toMetadata } from "./metadata.ts";
import { cancelled, outgoing } from "./outgoing.ts";
import { createRetrier } from "./retry.ts";
import { channelCredentials, nameOptions, type TlsIdentity } from "./tls.ts";

/** What {@link createChannel} needs. */
export interface ChannelOptions {
  /** `host:port`, which DNS may resolve to many addresses, or a gRPC target such as `ipv4:10.0.0.1:9090,10.0.0.2:9090`. */
  address: string;
  /** The API key or mesh key that every call carries. */
  credential?: string;
  /** True: TLS with an authority that the system trusts; an identity: mutual TLS within its authority; otherwise cleartext. */
  tls?: boolean | TlsIdentity | undefined;
}

/** A connection to one service, balanced over all its addresses; use it with connect's `createClient`. */
export interface Channel extends Transport {
  /** Gives up the connections; calls under way are cancelled. */
  close(): void;
}

/** Settings of the channel; grpc-js's own retries are off, because retrying happens in one layer only: ours. */
const channelOptions: grpc.ChannelOptions = {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  "grpc.service_config_disable_resolution": 1,
  "grpc.enable_retries": 0,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // A deployment replaces addresses; the default of 30 s would keep asking for dead ones.
  "grpc.dns_min_time_between_resolutions_ms": 1_000,
};

/**
 * Creates a typed gRPC client's transport over grpc-js. Calls wait for a
 * connection until their deadline, which is the method's own unless
 * `timeoutMs` is given; unary calls that may be repeated are retried on
 * UNAVAILABLE. Errors are ServiceErrors, rebuilt from what the server sent.
 *
 * A stream ends early only by the `signal` of its call options: connect's
 * clients don't pass on a `break` out of the loop over its messages. Node ends
 * the input of a stream that it cancels, so a server may take the half of it
 * for the whole: messages of a client stream must each be complete.
 */
export function createChannel({ address, credential, tls = false }: ChannelOptions): Channel {
  const target = /^(dns|ipv4|ipv6|unix):/.test(address) ? address : `dns:///${address}`;
  const client = new grpc.Client(target, channelCredentials(tls), { ...channelOptions, ...nameOptions(tls) });
  const retrier = createRetrier();
  const base = credential === undefined ? undefined : { authorization: `Bearer ${credential}` };

  return {
    async unary(method, signal, timeoutMs, header, input) {
      const deadlineAt = deadlineOf(method, timeoutMs);
      const request = encode(method.input, input);
      const headers = outgoing(base, header);
      const call = () => callUnary({ client, headers, deadlineAt, signal }, method, request);
      return isRepeatable(method) ? retrier.run(call, deadlineAt, signal) : call();
    },
    stream(method, signal, timeoutMs, header, input) {
      const headers = outgoing(base, header);
      return callStream({ client, headers, deadlineAt: deadlineOf(method, timeoutMs), signal }, method, input);
    },
    close: () => client.close(),
  };
}

/**
 * Call options for a call that serves another one: it ends with it, and its
 * deadline is what the other has left. Not for work that outlives the call or
 * that several calls share.
 */
export function within(call: Call): CallOptions {
  const { signal, deadlineAt } = call;
  return deadlineAt === undefined ? { signal } : { signal, timeoutMs: Math.max(0, deadlineAt - Date.now()) };
}

/** The call's deadline in epoch milliseconds; infinite for streams without a maximum age. */
function deadlineOf(method: DescMethod, timeoutMs: number | undefined): number {
  const ms = timeoutMs ?? (readPolicy(method).deadlineMs || Number.POSITIVE_INFINITY);
  return Date.now() + ms;
}

function isRepeatable({ idempotency }: DescMethod): boolean {
  return idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
}

/** What one attempt needs beside the request. */
interface Attempt {
  readonly client: grpc.Client;
  readonly headers: Headers;
  readonly deadlineAt: number;
  readonly signal: AbortSignal | undefined;
}

const asIs = (bytes: Buffer): Buffer => bytes;

function encode<M extends DescMessage>(schema: M, init: MessageInitShape<M>): Buffer {
  const bytes = toBinary(schema, create(schema, init));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function metadataOf({ headers }: Attempt): grpc.Metadata {
  return toMetadata(headers, { waitForReady: true });
}

function callUnary<I extends DescMessage, O extends DescMessage>(
  attempt: Attempt,
  method: DescMethodUnary<I, O>,
  request: Buffer,
): Promise<UnaryResponse<I, O>> {
  const { client, deadlineAt, signal } = attempt;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    let header = new Headers();
    let reply: Buffer | undefined;
    const path = `/${methodName(method)}`;
    const call = client.makeUnaryRequest(
      path,
      asIs,
      asIs,
      request,
      metadataOf(attempt),
      { deadline: deadlineAt },
      (_error, bytes?: Buffer) => {
        reply = bytes;
      },
    );
    const cancel = () => call.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    call.once("metadata", (metadata: grpc.Metadata) => {
      header = fromMetadata(metadata);
    });
    // The last event of every call, also of a failed one; it follows the callback.
    call.once("status", (status: grpc.StatusObject) => {
      signal?.removeEventListener("abort", cancel);
      if (reply === undefined) return reject(failure(status, signal));
      const trailer = fromMetadata(status.metadata);
      const message = fromBinary(method.output, reply);
      resolve({ stream: false, service: method.parent, method, header, message, trailer });
    });
  });
}

async function callStream<I extends DescMessage, O extends DescMessage>(
  attempt: Attempt,
  method: DescMethodStreaming<I, O>,
  input: AsyncIterable<MessageInitShape<I>>,
): Promise<StreamResponse<I, O>> {
  const { client, deadlineAt, signal } = attempt;
  if (signal?.aborted) throw cancelled(signal);
  // On the wire all kinds of streams are the same, so one call of grpc-js does for all.
  const options = Number.isFinite(deadlineAt) ? { deadline: deadlineAt } : {};
  const call = client.makeBidiStreamRequest(`/${methodName(method)}`, asIs, asIs, metadataOf(attempt), options);
  const cancel = () => call.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  const trailer = new Headers();
  const status = new Promise<grpc.StatusObject>((resolve) => call.once("status", resolve));
  const metadata = new Promise<grpc.Metadata>((resolve) => call.once("metadata", resolve));
  // The status says what went wrong, and it always comes; without a listener the event would end the process.
  call.on("error", () => {});
  let inputFailure: { error: unknown } | undefined;
  writeAll(call, status, method.input, input).catch((error: unknown) => {
    inputFailure = { error };
    call.cancel();
  });

  async function* messages(): AsyncGenerator<MessageShape<O>> {
    try {
      for await (const bytes of readAll(call)) yield fromBinary(method.output, bytes);
      const ended = await status;
      if (inputFailure !== undefined) throw inputFailure.error;
      if (ended.code !== grpc.status.OK) throw failure(ended, signal);
      fromMetadata(ended.metadata).forEach((value, name) => void trailer.append(name, value));
    } finally {
      signal?.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  const header = new Headers();
  // A call that fails at once has a status only.
  const first = await Promise.race([metadata, status]);
  if (first instanceof grpc.Metadata) fromMetadata(first).forEach((value, name) => void header.append(name, value));
  return { stream: true, service: method.parent, method, header, message: messages(), trailer };
}

async function* readAll(call: Readable): AsyncGenerator<Buffer> {
  try {
    yield* call as AsyncIterable<Buffer>;
  } catch {
    // Its status tells why.
  }
}

async function writeAll<I extends DescMessage>(
  call: Writable,
  status: Promise<unknown>,
  schema: I,
  input: AsyncIterable<MessageInitShape<I>>,
): Promise<void> {
  let over = false;
  const ended = status.then(() => {
    over = true;
  });
  for await (const message of input) {
    if (over) return;
    if (!call.write(encode(schema, message))) {
      await Promise.race([new Promise((resolve) => call.once("drain", resolve)), ended]);
    }
  }
  call.end();
}

function failure(status: grpc.StatusObject, signal: AbortSignal | undefined): ServiceError {
  if (signal?.aborted) return cancelled(signal);
  if (status.code !== grpc.status.OK) return fromGrpcStatus(status);
  return platformError("INTERNAL", "the server answered without a message");
}
