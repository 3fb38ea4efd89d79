/** Reads the topic of license events as a member of a consumer group. docs/guides/license-events.md explains it. */
import { fromBinary } from "@bufbuild/protobuf";
import { type LicenseChanged, LicenseChangedSchema } from "@licet/contracts/licet/licensing/v1/licensing_events_pb";
import { type EachBatchPayload, Kafka, type KafkaMessage, logLevel } from "kafkajs";
import { openJournal, setting, tell } from "./journal.ts";

const TOPIC = "licet.license.v1";

const journal = openJournal(setting("JOURNAL"));
const kafka = new Kafka({
  clientId: "license-events-example",
  brokers: setting("KAFKA_BROKERS").split(","),
  logLevel: logLevel.WARN,
});
const consumer = kafka.consumer({
  groupId: setting("CONSUMER_GROUP"),
  sessionTimeout: 10_000,
  heartbeatInterval: 2_000,
  maxBytes: 8 * 1024 * 1024,
  maxBytesPerPartition: 4 * 1024 * 1024,
});

consumer.on("consumer.crash", ({ payload }) => {
  if (payload.restart) return;
  tell("the consumer ends", { error: String(payload.error) });
  process.exit(1);
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void stop());

await consumer.connect();
// A new group begins with what the topic still has.
await consumer.subscribe({ topics: [TOPIC], fromBeginning: true });
// Offsets are committed by us, after the effect.
await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: takeBatch });

async function takeBatch({ batch, isRunning, isStale, resolveOffset, heartbeat }: EachBatchPayload): Promise<void> {
  let next: string | undefined;
  for (const message of batch.messages) {
    if (!isRunning() || isStale()) break;
    take(message, batch.partition);
    resolveOffset(message.offset);
    next = String(BigInt(message.offset) + 1n);
    await heartbeat();
  }
  if (next === undefined) return;
  // A commit that fails makes the records come again; then they are known.
  await consumer.commitOffsets([{ topic: batch.topic, partition: batch.partition, offset: next }]);
}

/**
 * Brings about what a record says, unless that is known already. What it throws is a failure of the journal: the offset
 * is not committed then, and the record comes again.
 */
function take(message: KafkaMessage, partition: number): void {
  let change: LicenseChanged;
  try {
    change = decode(message);
  } catch (error) {
    // It would be the same however often it was read: it is told, and the consumer goes on.
    tell("poison", { topic: TOPIC, partition, offset: message.offset, error: String(error) });
    return;
  }
  const { tenantId, customerId, licenseId } = change;
  const version = Number(change.version);
  const known = journal.version(tenantId, customerId);
  if (version <= known) return;
  if (known > 0 && version > known + 1) {
    // The topic keeps events for 7 days. Nothing has to be made up for: the event has everything that holds now.
    tell("versions are missing", { customerId, known, version });
  }
  const [eventId, type] = [header(message, "ce_id"), header(message, "ce_type")];
  journal.append({ eventId, type, tenantId, customerId, version, licenseId });
}

function decode(message: KafkaMessage): LicenseChanged {
  if (header(message, "ce_id") === "" || header(message, "ce_type") === "") {
    throw new Error("the headers ce_id and ce_type are missing: it is no CloudEvent");
  }
  const change = fromBinary(LicenseChangedSchema, message.value ?? new Uint8Array());
  if (change.version < 1n || change.snapshot === undefined) {
    throw new Error(`version ${change.version} without a snapshot`);
  }
  return change;
}

function header({ headers }: KafkaMessage, name: string): string {
  return headers?.[name]?.toString() ?? "";
}

async function stop(): Promise<void> {
  await consumer.disconnect();
  journal.close();
  process.exit(0);
}
