import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { clientClosed, fromGrpcStatus, LicetError } from "./errors.ts";
import { createRetrier } from "./retry.ts";
import type { Telemetry, TraceHeaders } from "./telemetry.ts";

/** How the server is reached over TLS, in PEM. */
export interface TlsOptions {
  /** The authority that the server's certificate must come from; the system's ones when absent. */
  readonly ca?: Buffer | string;
  /** The client's own certificate and private key, where the server wants one. */
  readonly cert?: Buffer | string;
  readonly key?: Buffer | string;
  /** The name that the server's certificate must carry; the host of the address when absent. */
  readonly serverName?: string;
}

/** Where the server is and how calls are made. */
export interface ConnectionOptions {
  /** `host:port`, which DNS may resolve to many addresses, or a gRPC target such as `ipv4:10.0.0.1:9090,10.0.0.2:9090`. */
  readonly address: string;
  /** The API key; only calls that a license key proves can do without. */
  readonly apiKey?: string;
  /** True: TLS with the system's authorities. False (the default): cleartext, for meshes and loopback only. */
  readonly tls?: boolean | TlsOptions;
  /** For how many milliseconds a call may take, retries included, where it says nothing else; 1,000 when absent. */
  readonly timeoutMs?: number;
}

/** What one call may say for itself. */
export interface CallOptions {
  /** For how many milliseconds it may take, retries included. */
  readonly timeoutMs?: number | undefined;
  /** Ends the call. */
  readonly signal?: AbortSignal | undefined;
  /** False: it is made once, because the caller repeats it by rules of its own. */
  readonly repeat?: boolean | undefined;
}

/** One multiplexed connection to Licet: all calls of a client go over it. Errors are {@link LicetError}s. */
export interface Connection {
  /**
   * Makes a call. A method that may be repeated is, on UNAVAILABLE, within the time and a budget: in the long run one
   * call in ten. Where the server can't be reached it fails at once, and does not wait until it can.
   *
   * @param input the message, or its bytes
   */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    input: MessageInitShape<I> | Uint8Array,
    options?: CallOptions,
  ): Promise<MessageShape<O>>;
  /** Opens a stream of messages, with no deadline but what `timeoutMs` says; a loop that is left ends it. */
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    input: MessageInitShape<I>,
    options?: CallOptions,
  ): AsyncIterable<MessageShape<O>>;
  /** Makes the connection and resolves once it is there; goes on trying until the signal aborts. */
  connected(signal: AbortSignal): Promise<void>;
  /** Gives up the connection; calls under way are cancelled. */
  close(): void;
}

const DEFAULT_TIMEOUT_MS = 1_000;
/** A snapshot that licensing refuses as too large is smaller than this, in bytes. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;

/** Nothing is reported. */
const untold: Pick<Telemetry, "call"> = { call: (_method, run) => run({}) };

/** Settings of the channel; grpc-js's own retries are off, because retrying happens in one layer only: ours. */
const channelOptions: grpc.ChannelOptions = {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  "grpc.service_config_disable_resolution": 1,
  "grpc.enable_retries": 0,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 5_000,
  "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
  // A deployment replaces addresses; the default of 30 s would keep asking for dead ones.
  "grpc.dns_min_time_between_resolutions_ms": 1_000,
};

/** Creates a connection; it is made with the first call. @param telemetry reports its unary calls */
export function connect(options: ConnectionOptions, telemetry: Pick<Telemetry, "call"> = untold): Connection {
  const { address, apiKey, timeoutMs: defaultTimeoutMs = DEFAULT_TIMEOUT_MS } = options;
  const target = /^(dns|ipv4|ipv6|unix):/.test(address) ? address : `dns:///${address}`;
  const client = new grpc.Client(target, credentialsOf(options), { ...channelOptions, ...nameOptions(options) });
  const retrier = createRetrier();
  const metadata = (trace: TraceHeaders = {}): grpc.Metadata => {
    const sent = new grpc.Metadata();
    for (const [name, value] of Object.entries(trace)) sent.set(name, value);
    if (apiKey !== undefined) sent.set("authorization", `Bearer ${apiKey}`);
    return sent;
  };
  let closed = false;

  return {
    async unary(method, input, { timeoutMs = defaultTimeoutMs, signal, repeat = isRepeatable(method) } = {}) {
      const deadlineAt = Date.now() + timeoutMs;
      const request = encode(method.input, input);
      return telemetry.call(pathOf(method).slice(1), (trace) => {
        const attempt = async () => {
          if (closed) throw clientClosed();
          return callUnary(client, method, { request, metadata: metadata(trace), deadlineAt, signal });
        };
        return repeat ? retrier.run(attempt, deadlineAt, signal) : attempt();
      });
    },
    async *serverStream(method, input, { timeoutMs = Number.POSITIVE_INFINITY, signal } = {}) {
      if (closed) throw clientClosed();
      const request = encode(method.input, input);
      yield* callStream(client, method, { request, metadata: metadata(), deadlineAt: Date.now() + timeoutMs, signal });
    },
    async connected(signal) {
      const channel = client.getChannel();
      while (!closed && !signal.aborted) {
        const state = channel.getConnectivityState(true);
        if (state === grpc.connectivityState.READY) return;
        await changed(channel, state);
      }
      throw closed ? clientClosed() : cancelled(signal);
    },
    close() {
      closed = true;
      client.close();
    },
  };
}

function credentialsOf({ tls = false }: ConnectionOptions): grpc.ChannelCredentials {
  if (tls === false) return grpc.credentials.createInsecure();
  if (tls === true) return grpc.credentials.createSsl();
  const pem = (text: Buffer | string | undefined): Buffer | null => (text === undefined ? null : Buffer.from(text));
  return grpc.credentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert));
}

function nameOptions({ tls }: ConnectionOptions): grpc.ChannelOptions {
  const name = typeof tls === "object" ? tls.serverName : undefined;
  return name === undefined ? {} : { "grpc.ssl_target_name_override": name, "grpc.default_authority": name };
}

/**
 * Waits until a channel leaves a state, at most a second, which keeps the process while nothing else does. Not by
 * `waitForReady`, which makes a channel that is closed meanwhile connect again.
 */
function changed(channel: grpc.ChannelInterface, state: grpc.connectivityState): Promise<void> {
  return new Promise((resolve) => channel.watchConnectivityState(state, Date.now() + 1_000, () => resolve()));
}

function isRepeatable({ idempotency }: DescMethod): boolean {
  return idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
}

/** One attempt at a call. */
interface Attempt {
  readonly request: Buffer;
  readonly metadata: grpc.Metadata;
  readonly deadlineAt: number;
  readonly signal: AbortSignal | undefined;
}

const asIs = (bytes: Buffer): Buffer => bytes;

function encode<M extends DescMessage>(schema: M, input: MessageInitShape<M> | Uint8Array): Buffer {
  const bytes = input instanceof Uint8Array ? input : toBinary(schema, create(schema, input));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function callUnary<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodUnary<I, O>,
  { request, metadata, deadlineAt, signal }: Attempt,
): Promise<MessageShape<O>> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    const call = client.makeUnaryRequest(
      pathOf(method),
      asIs,
      asIs,
      request,
      metadata,
      { deadline: deadlineAt },
      (error, reply?: Buffer) => {
        signal?.removeEventListener("abort", cancel);
        if (error !== null) reject(failure(error, signal));
        else resolve(reply === undefined ? Promise.reject(unreadable("no message")) : decode(method.output, reply));
      },
    );
    const cancel = () => call.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
  });
}

async function* callStream<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodServerStreaming<I, O>,
  { request, metadata, deadlineAt, signal }: Attempt,
): AsyncGenerator<MessageShape<O>> {
  if (signal?.aborted) throw cancelled(signal);
  const options = Number.isFinite(deadlineAt) ? { deadline: deadlineAt } : {};
  const call = client.makeServerStreamRequest(pathOf(method), asIs, asIs, request, metadata, options);
  const cancel = () => call.cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  // The status says how it ended, and it always comes; without a listener the event would end the process.
  call.on("error", () => undefined);
  const status = new Promise<grpc.StatusObject>((resolve) => call.once("status", resolve));
  try {
    for await (const bytes of readAll(call)) yield await decode(method.output, bytes);
    const ended = await status;
    if (ended.code !== grpc.status.OK) throw failure(ended, signal);
  } finally {
    signal?.removeEventListener("abort", cancel);
    call.cancel();
  }
}

async function* readAll(call: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* call;
  } catch {
    // Its status tells why.
  }
}

async function decode<M extends DescMessage>(schema: M, bytes: Buffer): Promise<MessageShape<M>> {
  try {
    return fromBinary(schema, bytes);
  } catch (cause) {
    throw unreadable("a message that can't be read", cause);
  }
}

function failure(
  status: Pick<grpc.StatusObject, "code" | "details" | "metadata">,
  signal: AbortSignal | undefined,
): LicetError {
  return signal?.aborted ? cancelled(signal) : fromGrpcStatus(status);
}

function cancelled(signal: AbortSignal): LicetError {
  return new LicetError({
    code: "CANCELLED",
    reason: "CANCELLED",
    message: "the caller gave up",
    cause: signal.reason,
  });
}

function unreadable(what: string, cause?: unknown): LicetError {
  return new LicetError({ code: "INTERNAL", reason: "INTERNAL", message: `the server answered with ${what}`, cause });
}
