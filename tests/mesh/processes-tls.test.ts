/** The services as processes that speak gRPC as mutual TLS, with each other and with callers. */
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { InvoiceService } from "@licet/contracts/licet/billing/v1/invoice_service_pb";
import { ValidationService } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { createChannel } from "@licet/platform/rpc/client";
import { createTestAuthority } from "@licet/platform/testing/certificates";
import { startMesh, type TestMesh } from "./processes.ts";

const question = { customerId: "cairo-capital", feature: "egx_access" };

let mesh: TestMesh;

beforeAll(async () => {
  mesh = await startMesh(1, { authority: createTestAuthority() });
});

afterAll(async () => {
  expect(await mesh.stop()).toMatchObject({ code: 0 });
});

test("calls go through, from outside and from service to service", async () => {
  const validation = createClient(ValidationService, mesh.all("validation", "tradsys", "service"));
  expect(await validation.validateFeature(question)).toMatchObject({ valid: true });
  const invoices = createClient(InvoiceService, mesh.all("billing", "tradsys", "viewer"));
  const { invoice } = await invoices.previewInvoice({ customerId: "nile-brokers" });
  expect(invoice?.total?.amountMinor).toBeGreaterThan(0n);
});

test("a caller without a certificate is refused, whatever its key", async () => {
  const channel = createChannel({ address: mesh.address("validation"), credential: mesh.key("tradsys", "service") });
  const validation = createClient(ValidationService, channel);
  await expect(validation.validateFeature(question, { timeoutMs: 1_000 })).rejects.toMatchObject({
    name: "ServiceError",
  });
  channel.close();
});
