import { status as grpcStatus } from "@grpc/grpc-js";
import type { Attack } from "./attack.ts";
import type { StreamAnswer } from "./raw-http2.ts";

/** What must not be read in any answer: stack traces, paths, the words of drivers. */
const internals =
  /\bat \S+ \(|node_modules|node:internal|\.[tj]s:\d|ECONN|SQLSTATE|\bSELECT\b|\bINSERT\b|pg_|postgres|kysely|TypeError|RangeError|internal error/i;

/** What any call may get that comes when too much is going on, or is too slow itself. */
const busy = ["grpc DEADLINE_EXCEEDED", "grpc UNAVAILABLE", "http 503", "http 504"];

/** Names of the codes of RST_STREAM and GOAWAY (RFC 9113, section 7). */
const errorNames =
  "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM".split(
    " ",
  );

/** Counts what the victim answered to one attack, and keeps what it should not have answered. */
export interface Tally {
  /** How often each answer came, such as `grpc INVALID_ARGUMENT`, `http 431`, `reset CANCEL`, `cut`. */
  readonly answers: Readonly<Record<string, number>>;
  /** Answers that the attack does not declare, or that tell internals; one of each kind. */
  readonly findings: readonly string[];
  /** Hostile acts: calls, frames or bytes sent, as the attack counts them. */
  readonly acts: number;
  /** Counts an answer to `what`. `text` is what a person could read in it. */
  note(answer: string, what?: string, text?: string): void;
  /** Counts what came of a stream of HTTP/2; nothing when nothing came. */
  noteStream(answer: StreamAnswer, what?: string): void;
  /** Counts acts. */
  act(count?: number): void;
  /** Says what is wrong beside the answers. */
  find(finding: string): void;
}

/** Starts with nothing. */
export function createTally({ answers: expected, name }: Pick<Attack, "answers" | "name">): Tally {
  const answers: Record<string, number> = {};
  const findings = new Map<string, string>();
  const state = { acts: 0 };
  const tally: Tally = {
    answers,
    get findings() {
      return [...findings.values()];
    },
    get acts() {
      return state.acts;
    },
    note(answer, what = "", text = "") {
      answers[answer] = (answers[answer] ?? 0) + 1;
      const seen = `${text.slice(0, 300)} (to ${what.slice(0, 200)})`;
      if (!expected.includes(answer) && !busy.includes(answer)) tally.find(`${answer} is not documented: ${seen}`);
      else if (internals.test(text)) tally.find(`${answer} tells internals: ${seen}`);
    },
    noteStream({ headers, body, reset }, what = "") {
      const code = headers.get("grpc-status");
      const http = headers.get(":status");
      if (code !== undefined) {
        tally.note(
          `grpc ${grpcStatus[Number(code)] ?? code}`,
          `${what}: ${readable(headers.get("grpc-message") ?? "")}`,
        );
      } else if (http !== undefined) {
        const text = headers.get("content-type")?.includes("json") ? body.toString("utf8") : "";
        tally.note(`http ${http}`, what, text);
      } else if (reset !== undefined) tally.note(`reset ${errorName(reset)}`, what);
    },
    act(count = 1) {
      state.acts += count;
    },
    find(finding) {
      // One of each kind: the same finding a thousand times says no more.
      const kind = finding.slice(0, 60);
      if (findings.size < 20 && !findings.has(kind)) findings.set(kind, `${name}: ${finding}`);
    },
  };
  return tally;
}

/** The name of a code of RST_STREAM or GOAWAY. */
export function errorName(code: number): string {
  return errorNames[code] ?? `code ${code}`;
}

/** A status message without its percent-encoding; grpc-js repeats an unknown path as it came. */
function readable(message: string): string {
  try {
    return decodeURIComponent(message);
  } catch {
    return message;
  }
}
