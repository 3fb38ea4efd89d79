import { describe, expect, test } from "@jest/globals";
import { checkAcknowledged, type PartitionedRecord, requests } from "./kafka-producer.ts";

const record = (partition: number, bytes: number): PartitionedRecord => ({
  topic: "t",
  partition,
  key: "k",
  headers: {},
  value: new Uint8Array(bytes),
});

describe("requests to Kafka", () => {
  const half = 512 * 1024;

  test("hold about 1 MiB of a partition, or one record that is larger", () => {
    const sizes = (records: PartitionedRecord[]) => [...requests(records)].map((request) => request.length);
    expect(sizes([record(0, half), record(1, half), record(0, 100), record(1, 100)])).toEqual([4]);
    expect(sizes([record(0, half), record(0, half), record(0, half)])).toEqual([1, 1, 1]);
    expect(sizes([record(0, 100), record(0, 2 * half), record(0, 100)])).toEqual([1, 1, 1]);
    expect(sizes([])).toEqual([]);
  });

  test("hold at most 2,000 records, and all of them in order", () => {
    const records = Array.from({ length: 4_500 }, (_, index) => record(index % 3, 1));
    const cut = [...requests(records)];
    expect(cut.map(({ length }) => length)).toEqual([2_000, 2_000, 500]);
    expect(cut.flat()).toEqual(records);
  });
});

test("a partition without an acknowledgement is a failure, whatever the client library says", () => {
  const records = [record(0, 1), record(1, 1)];
  const answer = (partition: number) => ({ topicName: "t", partition });
  expect(() => checkAcknowledged(records, [answer(0), answer(1)])).not.toThrow();
  expect(() => checkAcknowledged(records, [answer(0)])).toThrow("Kafka has not acknowledged the records of t/1");
});
