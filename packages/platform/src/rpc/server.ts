import { isIPv6 } from "node:net";
import { platformError, type ServiceError } from "../errors.ts";
import type { RunningCall } from "./pipeline.ts";

/** A server on one port. */
export interface RpcServer {
  /**
   * Begins to listen.
   *
   * @throws an Error whose `code` is `EADDRINUSE`, `EACCES` … and whose
   *   message names the address when the port can't be had.
   */
  start(): Promise<{ port: number }>;
  /**
   * Takes no new calls, ends streams with SHUTTING_DOWN, lets unary calls
   * finish for at most `graceMs` and then answers what is left with
   * SHUTTING_DOWN. Resolves when all connections are closed.
   */
  stop(graceMs: number): Promise<void>;
}

/** How long the answers of calls that were cut have to leave before their connections are cut too, in milliseconds. */
export const LAST_WORDS_MS = 500;

/** The address as it stands in URLs and in messages. */
export function hostPort(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The error of a port that can't be had. */
export function listenError(host: string, port: number, cause: Error): Error {
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : /E[A-Z]{4,}/.exec(cause.message)?.[0];
  const why = code === "EADDRINUSE" ? "the port is in use" : code === "EACCES" ? "not permitted" : cause.message;
  return Object.assign(new Error(`can't listen on ${hostPort(host, port)}: ${why}`, { cause }), { code, port });
}

/** The calls that a server has under way, so that it can end them. */
export interface OpenCalls {
  add(running: RunningCall): void;
  /** Ends a call, unless it is over: nobody waits for its answer, or its deadline has passed. */
  callerLeft(running: RunningCall): void;
  /** Ends all streams: they would otherwise last longer than any grace. */
  endStreams(): void;
  /** Ends everything; returns how many calls that were. */
  endAll(): number;
}

/** Starts with none. */
export function createOpenCalls(): OpenCalls {
  const open = new Set<RunningCall>();
  const end = (which: (running: RunningCall) => boolean): number => {
    const ending = [...open].filter(which);
    for (const { call } of ending) call.abort(shuttingDown());
    return ending.length;
  };
  return {
    add(running) {
      open.add(running);
      const remove = () => open.delete(running);
      running.done.then(remove, remove);
    },
    callerLeft(running) {
      if (open.has(running)) running.call.abort(gone(running.call.deadlineAt));
    },
    endStreams: () => void end(({ call }) => call.method.methodKind !== "unary"),
    endAll: () => end(() => true),
  };
}

function shuttingDown(): ServiceError {
  return platformError("SHUTTING_DOWN", "this instance is ending; try again");
}

function gone(deadlineAt: number | undefined): ServiceError {
  return deadlineAt !== undefined && deadlineAt <= Date.now()
    ? platformError("DEADLINE_EXCEEDED", "the call's deadline passed")
    : platformError("CANCELLED", "the caller cancelled the call");
}
