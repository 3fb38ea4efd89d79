/** Callers of TrackUsage and TrackUsageBatch on bare node:http2; `ingest.ts` starts it. */
import { once } from "node:events";
import { connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  TrackUsageBatchRequestSchema,
  TrackUsageRequestSchema,
  UsageMeteringService,
} from "@licet/contracts/licet/metering/v1/usage_metering_service_pb";
import { serveParent } from "./child.ts";
import { eventsOf } from "./ingest-metering.ts";
import type { LoadReport } from "./rounds.ts";
import { callUnary, frame } from "./unary-call.ts";

/** What the generator is asked to do. */
export interface IngestRequest {
  readonly port: number;
  /** Each sends its next call when the one before it was answered. */
  readonly callers: number;
  /** Events of a call; of 1, the call is TrackUsage. */
  readonly batch: number;
  readonly forMs: number;
}

const ID_LENGTH = 12;
const { trackUsage, trackUsageBatch } = UsageMeteringService.method;

/** Requests are those bytes again with other ids: encoding each anew would make the generator the slower side. */
function createTemplate(batch: number): () => Buffer {
  const mark = (index: number): string => `#${index.toString(36).padStart(ID_LENGTH - 1, "0")}`;
  const events = eventsOf(batch, mark);
  const bytes =
    batch === 1
      ? toBinary(TrackUsageRequestSchema, create(TrackUsageRequestSchema, { event: events[0] }))
      : toBinary(TrackUsageBatchRequestSchema, create(TrackUsageBatchRequestSchema, { events }));
  const template = frame(bytes);
  const places = events.map(({ id }) => template.indexOf(id));
  let number = 0;
  return () => {
    const message = Buffer.from(template);
    for (const place of places) message.write((number++).toString(36).padStart(ID_LENGTH, "0"), place, "latin1");
    return message;
  };
}

async function generate({ port, callers, batch, forMs }: IngestRequest): Promise<LoadReport> {
  const session = connect(`http://127.0.0.1:${port}`);
  await once(session, "connect");
  const headers = {
    ":method": "POST",
    ":path": `/${UsageMeteringService.typeName}/${(batch === 1 ? trackUsage : trackUsageBatch).name}`,
    "content-type": "application/grpc",
    te: "trailers",
    authorization: "Bearer bench",
  };
  const next = createTemplate(batch);
  const begunAt = performance.now();
  const counts = { requests: 0, failed: 0 };
  const call = async (): Promise<void> => {
    while (performance.now() - begunAt < forMs) {
      const status = await callUnary(session, headers, next());
      counts.requests += batch;
      if (status !== "0") counts.failed += batch;
    }
  };
  await Promise.all(Array.from({ length: callers }, call));
  const seconds = (performance.now() - begunAt) / 1_000;
  session.close();
  return { ...counts, seconds };
}

serveParent((request) => generate(request as IngestRequest));
