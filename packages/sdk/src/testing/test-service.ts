import { createHash, randomUUID } from "node:crypto";
import {
  create,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { ErrorInfoSchema } from "@licet/contracts/google/rpc/error_details_pb";
import { type Status, StatusSchema } from "@licet/contracts/google/rpc/status_pb";
import type { ProductCatalog } from "@licet/contracts/licet/licensing/v1/catalog_pb";
import type { EntitlementSnapshot } from "@licet/contracts/licet/licensing/v1/entitlement_pb";
import {
  type AnswerSchema,
  type BatchValidateRequest,
  BatchValidateResponseSchema,
  type CheckFeaturesRequest,
  CheckFeaturesResponseSchema,
  type ValidateFeatureRequest,
  ValidateFeatureResponseSchema,
  ValidationService,
  type WatchEntitlementsRequest,
  type WatchEntitlementsResponse,
  WatchEntitlementsResponseSchema,
} from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { toCheckFeaturesReply, toValidateFeatureReply } from "./test-answers.ts";

/** The tenant of all test servers. */
export const TEST_TENANT = "test";
/** How often heartbeats are sent, in milliseconds. */
const HEARTBEAT_MS = 1_000;
/** How many changes a resume token can lie behind. */
const MAX_CHANGES = 100_000;

/** What the server knows, as it is told. */
export interface ServedFacts {
  readonly customers: Map<string, EntitlementSnapshot>;
  readonly products: Map<string, ProductCatalog>;
}

/** What is wrong with the server at the moment. */
export interface Trouble {
  refuses: "UNAVAILABLE" | "UNAUTHENTICATED" | undefined;
  holds: boolean;
}

/** A change: of a customer, or of a product. */
export type Change = { readonly customerId: string } | { readonly product: string };

interface Watcher {
  readonly call: grpc.ServerWritableStream<WatchEntitlementsRequest, WatchEntitlementsResponse>;
  /** How many changes, since the server's start, it has been told. */
  told: number;
}

/** ValidationService on facts in memory. */
export class TestService {
  readonly calls = new Map<string, number>();
  readonly #facts: ServedFacts;
  readonly #trouble: Trouble;
  readonly #apiKey: string;
  readonly #watchers = new Set<Watcher>();
  readonly #timer = setInterval(() => this.heartbeat(), HEARTBEAT_MS).unref();
  #changes: Change[] = [];
  /** Resume tokens of another epoch stand for nothing. */
  #epoch = randomUUID();
  #heldAtMs: number | undefined;

  constructor(of: { readonly facts: ServedFacts; readonly trouble: Trouble; readonly apiKey: string }) {
    this.#facts = of.facts;
    this.#trouble = of.trouble;
    this.#apiKey = of.apiKey;
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  /** Tells the watchers of a change, now or once facts are not held any more. */
  changed(change: Change): void {
    if (this.#changes.length === MAX_CHANGES) this.forgetTokens();
    this.#changes.push(change);
    for (const watcher of this.#watchers) this.#tell(watcher);
  }

  /** Tells all watchers that the watch lives, and before what was not told while facts were held. */
  heartbeat(): void {
    this.#heldAtMs = this.#trouble.holds ? (this.#heldAtMs ?? Date.now()) : undefined;
    for (const watcher of this.#watchers) {
      this.#tell(watcher);
      this.#send(watcher, { case: "heartbeat", value: this.#beat() });
    }
  }

  endWatches(code: "UNAVAILABLE" | "UNAUTHENTICATED"): void {
    for (const { call } of this.#watchers) call.emit("error", refusal(code));
  }

  forgetTokens(): void {
    this.#epoch = randomUUID();
    this.#changes = [];
    for (const watcher of this.#watchers) watcher.told = 0;
  }

  close(): void {
    clearInterval(this.#timer);
    this.endWatches("UNAVAILABLE");
  }

  /** What grpc-js serves. */
  get handlers(): grpc.UntypedServiceImplementation {
    return {
      ValidateFeature: this.#unary<ValidateFeatureRequest>("ValidateFeature", (request) =>
        create(ValidateFeatureResponseSchema, toValidateFeatureReply(this.#facts, request, this.#stalenessMs())),
      ),
      CheckFeatures: this.#unary<CheckFeaturesRequest>("CheckFeatures", (request) =>
        create(CheckFeaturesResponseSchema, toCheckFeaturesReply(this.#facts, request, this.#stalenessMs())),
      ),
      BatchValidate: this.#unary<BatchValidateRequest>("BatchValidate", ({ questions }) =>
        create(BatchValidateResponseSchema, { answers: questions.map((question) => this.#answer(question)) }),
      ),
      WatchEntitlements: (call: Watcher["call"]) => {
        const refused = this.#admit("WatchEntitlements", call.metadata);
        if (refused === undefined) this.#watch(call);
        else call.emit("error", refused);
      },
    };
  }

  #answer(question: ValidateFeatureRequest): MessageInitShape<typeof AnswerSchema> {
    try {
      const response = toValidateFeatureReply(this.#facts, question, this.#stalenessMs());
      return { result: { case: "response", value: response } };
    } catch (error) {
      return { result: { case: "error", value: statusOf("INVALID_ARGUMENT", (error as Error).message) } };
    }
  }

  #unary<I extends Message>(name: string, answer: (request: I) => Message): grpc.handleUnaryCall<I, Message> {
    return (call, callback) => {
      const refused = this.#admit(name, call.metadata);
      if (refused !== undefined) return callback(refused);
      try {
        callback(null, answer(call.request));
      } catch (error) {
        callback(refusal("INVALID_ARGUMENT", (error as Error).message));
      }
    };
  }

  #admit(name: string, metadata: grpc.Metadata): Partial<grpc.StatusObject> | undefined {
    this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
    if (this.#trouble.refuses !== undefined) return refusal(this.#trouble.refuses);
    const [presented] = metadata.get("authorization");
    return presented === `Bearer ${this.#apiKey}` ? undefined : refusal("UNAUTHENTICATED");
  }

  #stalenessMs(): number {
    return this.#heldAtMs === undefined ? 0 : Date.now() - this.#heldAtMs;
  }

  #watch(call: Watcher["call"]): void {
    const [epoch, told] = call.request.resumeToken.split("/");
    const resumes = epoch === this.#scopedEpoch(call.request);
    const watcher: Watcher = { call, told: resumes ? Number(told) : this.#changes.length };
    if (resumes) this.#tell(watcher);
    else this.#tellAll(watcher);
    this.#send(watcher, { case: "synchronized", value: this.#beat() });
    this.#watchers.add(watcher);
    for (const end of ["cancelled", "close", "error"]) call.on(end, () => this.#watchers.delete(watcher));
  }

  #tellAll(watcher: Watcher): void {
    this.#send(watcher, { case: "reset", value: {} });
    for (const product of this.#facts.products.keys()) this.#tellChange(watcher, { product });
    const { customerIds } = watcher.call.request;
    for (const customerId of customerIds.length > 0 ? customerIds : this.#facts.customers.keys()) {
      this.#tellChange(watcher, { customerId });
    }
  }

  #tell(watcher: Watcher): void {
    if (this.#trouble.holds) return;
    const missed = this.#changes.slice(watcher.told);
    watcher.told = this.#changes.length;
    for (const change of missed) this.#tellChange(watcher, change);
  }

  #tellChange(watcher: Watcher, change: Change): void {
    if ("product" in change) {
      const catalog = this.#facts.products.get(change.product);
      if (catalog !== undefined) this.#send(watcher, { case: "catalog", value: catalog });
      return;
    }
    const { customerId } = change;
    const { customerIds } = watcher.call.request;
    if (customerIds.length > 0 && !customerIds.includes(customerId)) return;
    const known = this.#facts.customers.get(customerId);
    this.#send(watcher, { case: "snapshot", value: known ?? { tenantId: TEST_TENANT, customerId, version: 0n } });
  }

  #send(
    { call, told }: Watcher,
    content: NonNullable<MessageInitShape<typeof WatchEntitlementsResponseSchema>["content"]>,
  ): void {
    const resumeToken = `${this.#scopedEpoch(call.request)}/${told}`;
    call.write(create(WatchEntitlementsResponseSchema, { resumeToken, content }));
  }

  #scopedEpoch({ customerIds }: WatchEntitlementsRequest): string {
    return createHash("sha256")
      .update(JSON.stringify([this.#epoch, customerIds]))
      .digest("hex");
  }

  #beat() {
    const nowMs = Date.now();
    return { factsAsOf: timestampFromMs(this.#heldAtMs ?? nowMs), sentAt: timestampFromMs(nowMs) };
  }
}

/** What grpc-js has to know of the methods that are served. */
export const testServiceDefinition: grpc.ServiceDefinition = Object.fromEntries(
  [
    ValidationService.method.validateFeature,
    ValidationService.method.checkFeatures,
    ValidationService.method.batchValidate,
    ValidationService.method.watchEntitlements,
  ].map(({ name, input, output, parent, methodKind }) => [
    name,
    {
      path: `/${parent.typeName}/${name}`,
      requestStream: false,
      responseStream: methodKind === "server_streaming",
      ...codecOf("request", input),
      ...codecOf("response", output),
    },
  ]),
) as grpc.ServiceDefinition;

function codecOf(side: "request" | "response", schema: DescMessage): object {
  return {
    [`${side}Serialize`]: (message: Message) => Buffer.from(toBinary(schema, message)),
    [`${side}Deserialize`]: (bytes: Buffer) => fromBinary(schema, bytes),
  };
}

const reasons = {
  UNAVAILABLE: "DEPENDENCY_UNAVAILABLE",
  UNAUTHENTICATED: "CREDENTIAL_INVALID",
  INVALID_ARGUMENT: "INVALID_FIELD",
} as const;

/** A status with its reason, as the real service sends it. */
function statusOf(code: keyof typeof reasons, message: string): Status {
  const info = create(ErrorInfoSchema, { reason: reasons[code], domain: "licet.dev" });
  return create(StatusSchema, { code: grpc.status[code], message, details: [anyPack(ErrorInfoSchema, info)] });
}

function refusal(code: keyof typeof reasons, message = `the test server answers ${code}`): Partial<grpc.StatusObject> {
  const metadata = new grpc.Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, statusOf(code, message))));
  return { code: grpc.status[code], details: message, metadata };
}
