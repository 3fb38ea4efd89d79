/** A server of UsageMeteringService that takes every batch at once and keeps nothing; `track.ts` starts it. */
import { create, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import {
  TrackUsageBatchResponseSchema,
  UsageMeteringService,
} from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { serveParent } from "./child.ts";

/** What it tells when asked. */
export interface TrackServerReport {
  readonly port: number;
  /** How many events it has been sent. */
  readonly events: number;
}

/** The tag of `TrackUsageBatchRequest.events`. */
const EVENT_TAG = 0x0a;
let events = 0;

/** Counts the events of a request without decoding them. */
function countEvents(body: Buffer): number {
  let count = 0;
  for (let at = 0; at < body.length; count++) {
    if (body[at] !== EVENT_TAG) throw new Error(`there is no event at byte ${at}`);
    let length = 0;
    let shift = 0;
    for (let more = true; more; shift += 7) {
      const byte = body[++at] ?? 0;
      length |= (byte & 0x7f) << shift;
      more = byte >= 0x80;
    }
    at += 1 + length;
  }
  return count;
}

const reply = Buffer.from(toBinary(TrackUsageBatchResponseSchema, create(TrackUsageBatchResponseSchema)));
const { trackUsageBatch } = UsageMeteringService.method;
const asIs = (bytes: Buffer): Buffer => bytes;
const server = new grpc.Server();
server.addService(
  {
    trackUsageBatch: {
      path: `/${UsageMeteringService.typeName}/${trackUsageBatch.name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: asIs,
      requestDeserialize: asIs,
      responseSerialize: asIs,
      responseDeserialize: asIs,
    },
  },
  {
    trackUsageBatch: ({ request }: { request: Buffer }, respond: grpc.sendUnaryData<Buffer>) => {
      events += countEvents(request);
      respond(null, reply);
    },
  },
);
const port = await new Promise<number>((resolve, reject) => {
  server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
    error === null ? resolve(bound) : reject(error),
  );
});
serveParent(async (): Promise<TrackServerReport> => ({ port, events }));
