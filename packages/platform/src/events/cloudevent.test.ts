import { fromBinary } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "@jest/globals";
import { exampleEvent } from "../testing/example-event.ts";
import { topicOf, toRecord } from "./cloudevent.ts";

const schema = exampleEvent("example.v1", 3);
const event = {
  schema,
  message: { subject: "s", number: 7 },
  id: "id-1",
  source: "licet/test",
  type: "test.happened.v1",
  subject: "thing/s",
  key: "t/s",
  time: new Date("2026-01-02T03:04:05.678Z"),
};

describe("toRecord", () => {
  test("puts the attributes into headers and the message into the value", () => {
    const record = toRecord({ ...event, traceparent: "00-a-b-01" });
    expect(record).toMatchObject({ topic: "example.v1", key: "t/s" });
    expect(record.headers).toEqual({
      ce_specversion: "1.0",
      ce_id: "id-1",
      ce_source: "licet/test",
      ce_type: "test.happened.v1",
      ce_subject: "thing/s",
      ce_time: "2026-01-02T03:04:05.678Z",
      traceparent: "00-a-b-01",
      "content-type": "application/protobuf",
    });
    expect(fromBinary(schema, record.value)).toMatchObject({ subject: "s", number: 7 });
  });

  test("has no traceparent where there is none", () => {
    expect(toRecord(event).headers).not.toHaveProperty("traceparent");
  });
});

describe("topicOf", () => {
  test("is what the contract declares", () => {
    const retentionMs = 24 * 60 * 60 * 1000;
    expect(topicOf(schema)).toEqual({ name: "example.v1", partitions: 3, compacted: false, retentionMs });
  });

  test("refuses messages that are no events and topics without partitions", () => {
    expect(() => topicOf(StringValueSchema)).toThrow("google.protobuf.StringValue is no event");
    expect(() => topicOf(exampleEvent("x", 0))).toThrow("at least 1 partition");
  });
});
