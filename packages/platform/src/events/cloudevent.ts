import { create, type DescMessage, getOption, hasOption, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { topic as topicOption } from "@licet/contracts/licet/options/v1/options_pb";
import type { OutgoingRecord, TopicSpec } from "./bus.ts";

const dayMs = 24 * 60 * 60 * 1000;

/** An event as a service states it. */
export interface CloudEvent<Desc extends DescMessage> {
  /** The payload's type, which names the topic by its option `licet.options.v1.topic`. */
  readonly schema: Desc;
  readonly message: MessageInitShape<Desc>;
  /** Unique within `source`; a repetition of an event has the same id. */
  readonly id: string;
  /** Who says it, such as `licet/licensing`. */
  readonly source: string;
  /** What happened, with the version of its shape. */
  readonly type: string;
  /** What it happened to, such as `customer/cairo-capital`. */
  readonly subject: string;
  /** What keeps its order: events of one key reach every reader one after the other. */
  readonly key: string;
  /** When it happened. */
  readonly time: Date;
  /** W3C trace context of the call that caused it. */
  readonly traceparent?: string | undefined;
}

/**
 * Makes the record of an event: CloudEvents 1.0 in the binary mode of its Kafka binding, attributes in `ce_` headers
 * and the protobuf message as the value.
 */
export function toRecord<Desc extends DescMessage>(event: CloudEvent<Desc>): OutgoingRecord {
  const { schema, message, id, source, type, subject, key, time, traceparent } = event;
  return {
    topic: topicOf(schema).name,
    key,
    headers: {
      ce_specversion: "1.0",
      ce_id: id,
      ce_source: source,
      ce_type: type,
      ce_subject: subject,
      ce_time: time.toISOString(),
      ...(traceparent === undefined ? {} : { traceparent }),
      "content-type": "application/protobuf",
    },
    value: toBinary(schema, create(schema, message)),
  };
}

/** Read once for each type: finding an option costs a tenth of what accepting an event of usage does. */
const topics = new WeakMap<DescMessage, TopicSpec>();

/** The topic that carries messages of a type, as the contract declares it. */
export function topicOf(schema: DescMessage): TopicSpec {
  const known = topics.get(schema);
  if (known !== undefined) return known;
  const topic = readTopic(schema);
  topics.set(schema, topic);
  return topic;
}

function readTopic(schema: DescMessage): TopicSpec {
  if (!hasOption(schema, topicOption)) {
    throw new Error(`${schema.typeName} is no event: it lacks the option licet.options.v1.topic`);
  }
  const { name, partitions, compacted, retentionDays } = getOption(schema, topicOption);
  if (name === "" || partitions < 1 || retentionDays < 1) {
    throw new Error(
      `the topic of ${schema.typeName} needs a name, at least 1 partition and at least 1 day of retention`,
    );
  }
  return { name, partitions, compacted, retentionMs: retentionDays * dayMs };
}
