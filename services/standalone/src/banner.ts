import { relative } from "node:path";
import { type RunInfo, runFile } from "./run-file.ts";
import type { Started } from "./service.ts";

/** The question that the calls of the banner ask. */
const METHOD = "licet.validation.v1.ValidationService/ValidateFeature";
const QUESTION = `'{"customer_id": "cairo-capital", "feature": "egx_access"}'`;

/**
 * What a person sees when Licet is ready: where it is, a key, and three calls to paste. The calls start at the margin, so
 * that a line with a key in it fits into 80 columns.
 */
export function banner({ run, dataDir }: Started, elapsedMs: number): string {
  const short = relative(process.cwd(), dataDir);
  const shown = short === "" || short.startsWith("..") ? dataDir : short;
  const lines = [
    "",
    `Licet is ready after ${(elapsedMs / 1000).toFixed(1)} s. Ctrl-C ends it.`,
    "",
    `  gRPC      ${run.grpcUrl}`,
    `  Web       ${run.webUrl}`,
    `  Metrics   ${run.metricsUrl}`,
    `  API keys  ${runFile(shown)}`,
    ...calls(run),
    "",
  ];
  return lines.join("\n");
}

function calls({ grpcUrl, webUrl, apiKeys }: RunInfo): string[] {
  const key = apiKeys.tradsys?.service;
  if (key === undefined) return withoutDemo(grpcUrl, apiKeys.platform?.operator ?? "");
  return [
    `  Demo key  ${key}`,
    "",
    "May cairo-capital trade on the Egyptian exchange? Ask in one of three ways:",
    "",
    ...call(`npx buf curl --protocol grpc --http2-prior-knowledge`, key, `${grpcUrl}/${METHOD}`),
    "",
    ...call(`grpcurl -plaintext`, key, `${new URL(grpcUrl).host} ${METHOD}`),
    "",
    ...call(`curl -H content-type:application/json`, key, `${webUrl}/${METHOD}`),
  ];
}

function call(command: string, key: string, target: string): string[] {
  return [`${command} \\`, `-H x-api-key:${key} \\`, `-d ${QUESTION} \\`, target];
}

/** Without demo data there is nothing to ask yet: the operator's first step is a tenant. */
function withoutDemo(grpcUrl: string, operatorKey: string): string[] {
  return [
    "",
    "There is no demo data. Create a tenant with the operator's key:",
    "",
    "npx buf curl --protocol grpc --http2-prior-knowledge \\",
    `-H x-api-key:${operatorKey} \\`,
    `-d '{"request_id": "first", "tenant_id": "acme", "name": "Acme"}' \\`,
    `${grpcUrl}/licet.licensing.v1.TenantService/CreateTenant`,
  ];
}
