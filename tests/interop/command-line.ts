import { execFile, spawnSync } from "node:child_process";
import path from "node:path";
import { ATTEMPTS, PATIENT_MS } from "@licet/platform/testing/patient";
import { fromConnectError } from "./connect-json.ts";
import type { ForeignClient } from "./outcome.ts";

const bufProgram = path.join(import.meta.dirname, "../../node_modules/.bin/buf");

/** Whether this machine has curl. */
export const hasCurl = spawnSync("curl", ["--version"]).status === 0;

/**
 * `buf curl`: a gRPC client in Go.
 *
 * @param schema a folder of proto files, which are then all that it knows; without it, it asks reflection
 */
export function bufCurl(grpcUrl: string, schema?: string): ForeignClient {
  return {
    async call(key, method, body) {
      const header = key === undefined ? [] : ["-H", `x-api-key: ${key}`];
      const protocol = ["--protocol", "grpc", "--http2-prior-knowledge"];
      const known = schema === undefined ? [] : ["--schema", schema, "--emit-defaults"];
      const args = ["curl", ...protocol, ...known, ...header, "-d", JSON.stringify(body), `${grpcUrl}/${method}`];
      // It has no option for a deadline, so the method's own counts, which can be short for a busy machine.
      for (let attempt = 1; ; attempt++) {
        const { failed, stdout, stderr } = await run(bufProgram, args);
        if (!failed) return { reply: JSON.parse(stdout) };
        const outcome = fromConnectError(stderr);
        const late = "refusal" in outcome && outcome.refusal.code === "DEADLINE_EXCEEDED";
        if (!late || attempt === ATTEMPTS) return outcome;
      }
    },
  };
}

/** curl, speaking the Connect protocol in JSON over HTTP/1.1. */
export function curl(webUrl: string): ForeignClient {
  return {
    async call(key, method, body) {
      const headers = [
        "content-type: application/json",
        `connect-timeout-ms: ${PATIENT_MS}`,
        ...(key === undefined ? [] : [`authorization: Bearer ${key}`]),
      ];
      const args = ["-sS", "--http1.1", ...headers.flatMap((header) => ["-H", header])];
      const format = ["-w", "\\n%{http_code}", "-d", JSON.stringify(body)];
      const { stdout } = await run("curl", [...args, ...format, `${webUrl}/${method}`]);
      const [text = "", status] = stdout.split(/\n(?=\d+$)/);
      return status === "200" ? { reply: JSON.parse(text) } : fromConnectError(text);
    },
  };
}

function run(program: string, args: readonly string[]): Promise<{ failed: boolean; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: 30_000, maxBuffer: 16 * 1024 * 1024 }, (error, stdout, stderr) =>
      resolve({ failed: error !== null, stdout, stderr }),
    );
  });
}
