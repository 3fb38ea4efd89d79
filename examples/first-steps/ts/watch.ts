/** Watches a customer of the demo data until the first heartbeat. docs/guides/watch.md explains it. */
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { LicenseStatus } from "@licet/contracts/licet/licensing/v1/license_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { setting } from "./setting.ts";

const apiKey = setting("LICET_API_KEY");
// Cleartext, as on a machine of one's own.
const baseUrl = `http://${setting("LICET_ADDRESS")}`;
const sessionManager = new Http2SessionManager(baseUrl);
const transport = createGrpcTransport({ baseUrl, sessionManager });
const request = { customerIds: ["frozen-desk"] };
const stream = createClient(ValidationService, transport).watchEntitlements(request, {
  headers: { "x-api-key": apiKey },
});

for await (const { content } of stream) {
  // Of the catalogues there is one for each product; other kinds of messages may come in later releases.
  if (content.case === "reset" || content.case === "synchronized" || content.case === "heartbeat") {
    console.log(content.case);
  }
  if (content.case === "snapshot") {
    const { customerId, licenses } = content.value;
    const told = licenses.map(({ product, plan, status }) => `${product} ${plan} ${LicenseStatus[status]}`);
    console.log("snapshot", customerId, told.join(", "));
  }
  if (content.case === "heartbeat") break;
}
// The connection would outlive the stream, and keep the process.
sessionManager.abort();
