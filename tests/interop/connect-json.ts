import { PATIENT_MS } from "@licet/platform/testing/patient";
import { type Outcome, type RawClient, refusal } from "./outcome.ts";

/** Plain HTTP/1.1 with JSON, by `fetch`: the Connect protocol as any script speaks it. */
export function connectJson(webUrl: string): RawClient {
  const post = async (key: string | undefined, method: string, body: NonNullable<RequestInit["body"]>) => {
    const credential = key === undefined ? {} : { authorization: `Bearer ${key}` };
    const headers = { "content-type": "application/json", "connect-timeout-ms": `${PATIENT_MS}`, ...credential };
    const response = await fetch(`${webUrl}/${method}`, { method: "POST", headers, body });
    const text = await response.text();
    return response.ok ? { reply: JSON.parse(text) } : fromConnectError(text);
  };
  return {
    call: (key, method, body) => post(key, method, JSON.stringify(body)),
    callWithBytes: (key, method, bytes) => post(key, method, Buffer.from(bytes)),
  };
}

/** An error in the JSON of the Connect protocol, which `buf curl` prints too. */
export function fromConnectError(text: string): Outcome {
  interface ConnectErrorJson {
    readonly code: string;
    readonly message: string;
    readonly details?: readonly { readonly type: string; readonly value: string }[];
  }
  let error: ConnectErrorJson;
  try {
    error = JSON.parse(text);
  } catch {
    throw new Error(`not an error in JSON: ${text}`);
  }
  const details = error.details?.map(({ type, value }) => ({ type, value: Buffer.from(value, "base64") })) ?? [];
  return refusal(error.code, error.message, details);
}
