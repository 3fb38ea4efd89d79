import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, test } from "@jest/globals";
import { createLogger } from "../logging.ts";
import { createTestAuthority } from "../testing/certificates.ts";
import { echoBinding, echoKeys, echoPipeline } from "../testing/echo-server.ts";
import { EchoService } from "../testing/echo-service.ts";
import { createChannel } from "./client.ts";
import { createGrpcServer } from "./grpc.ts";
import { readTlsFiles, type TlsIdentity } from "./tls.ts";

const cleanUps: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const NAME = "licet.test";

/** Starts servers with certificates; returns the target of all. */
async function serve(...identities: readonly TlsIdentity[]): Promise<string> {
  const addresses: string[] = [];
  for (const tls of identities) {
    const logger = createLogger({ level: "silent", name: "tls" });
    const options = { bindings: [echoBinding()], pipeline: echoPipeline(), host: "127.0.0.1", port: 0, logger };
    const server = createGrpcServer({ ...options, tls });
    const { port } = await server.start();
    cleanUps.push(() => server.stop(0));
    addresses.push(`127.0.0.1:${port}`);
  }
  return `ipv4:${addresses.join(",")}`;
}

/** @param timeoutMs what a handshake may take on a busy machine; calls that are refused use it up. */
function call(address: string, identity: TlsIdentity | undefined, timeoutMs = 2_000): Promise<{ text: string }> {
  const tls = identity && { ...identity, serverName: NAME };
  const channel = createChannel({ address, credential: echoKeys.allowed, tls });
  cleanUps.push(() => channel.close());
  return createClient(EchoService, channel).echo({ text: "x" }, { timeoutMs });
}

describe("mutual TLS", () => {
  const authority = createTestAuthority();

  test("serves callers of the same authority, over several replicas", async () => {
    const address = await serve(authority.issue(NAME), authority.issue(NAME));
    for (let calls = 0; calls < 4; calls++) {
      await expect(call(address, authority.issue("caller"), 20_000)).resolves.toMatchObject({ text: "acme:x" });
    }
  });

  test("refuses callers without a certificate, and with one of another authority", async () => {
    const address = await serve(authority.issue(NAME));
    const stranger = { ...createTestAuthority("elsewhere").issue("caller"), ca: authority.ca };
    await expect(call(address, stranger)).rejects.toMatchObject({ name: "ServiceError" });
    await expect(call(address, undefined)).rejects.toMatchObject({ name: "ServiceError" });
  });

  test("refuses a server of another authority, and one with a certificate for another name", async () => {
    const impostor = await serve(createTestAuthority("elsewhere").issue(NAME));
    await expect(call(impostor, authority.issue("caller"))).rejects.toMatchObject({ name: "ServiceError" });
    const misnamed = await serve(authority.issue("elsewhere.test"));
    await expect(call(misnamed, authority.issue("caller"))).rejects.toMatchObject({ name: "ServiceError" });
  });
});

describe("readTlsFiles", () => {
  test("reads the three files, and names the one that it can't read", async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "licet-tls-"));
    cleanUps.push(() => rmSync(folder, { recursive: true }));
    const file = (name: string) => path.join(folder, name);
    for (const name of ["ca", "cert", "key"]) writeFileSync(file(name), `the ${name}`);
    const files = { ca: file("ca"), cert: file("cert"), key: file("key") };
    const read = await readTlsFiles(files);
    expect([read.ca, read.cert, read.key].map(String)).toEqual(["the ca", "the cert", "the key"]);
    await expect(readTlsFiles({ ...files, key: file("nothing") })).rejects.toThrow(/cannot read .*nothing/);
  });
});
