import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import type { TlsIdentity } from "../rpc/tls.ts";

/** A certificate authority for tests, made of DER by hand: Node makes keys but no certificates, and openssl may not be there. */
export interface TestAuthority {
  /** Its own certificate, as PEM. */
  readonly ca: Buffer;
  /** A certificate for one DNS name, with its key. */
  issue(name: string): TlsIdentity;
}

/** Makes an authority with a name and keys of its own; its certificates hold for a day. */
export function createTestAuthority(name = "test authority"): TestAuthority {
  const keys = makeKeys();
  const ca = certificate({ subject: name, issuer: name, key: keys.publicKey, signer: keys.privateKey });
  return {
    ca,
    issue(host) {
      const own = makeKeys();
      const cert = certificate({ subject: host, issuer: name, key: own.publicKey, signer: keys.privateKey, host });
      return { ca, cert, key: Buffer.from(own.privateKey.export({ type: "pkcs8", format: "pem" })) };
    },
  };
}

function makeKeys() {
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

/** What a certificate says; without a host it is an authority's (RFC 5280). */
interface Statement {
  readonly subject: string;
  readonly issuer: string;
  readonly key: KeyObject;
  readonly signer: KeyObject;
  readonly host?: string;
}

const DAY_MS = 86_400_000;
const ecdsaWithSha256 = sequence(tag(0x06, Buffer.from("2a8648ce3d040302", "hex")));

function certificate({ subject, issuer, key, signer, host }: Statement): Buffer {
  const basicConstraints = extension("551d13", sequence(...(host === undefined ? [tag(0x01, Buffer.of(0xff))] : [])));
  const extensions = host === undefined ? [basicConstraints] : [basicConstraints, extension("551d11", names(host))];
  const body = sequence(
    tag(0xa0, integer(Buffer.of(2))),
    integer(Buffer.concat([Buffer.of(1), randomBytes(8)])),
    ecdsaWithSha256,
    commonName(issuer),
    sequence(time(Date.now() - DAY_MS), time(Date.now() + DAY_MS)),
    commonName(subject),
    key.export({ type: "spki", format: "der" }),
    tag(0xa3, sequence(...extensions)),
  );
  const der = sequence(body, ecdsaWithSha256, bits(sign("sha256", body, signer)));
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return Buffer.from(`-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`);
}

/** subjectAltName with one DNS name. */
function names(host: string): Buffer {
  return sequence(tag(0x82, Buffer.from(host)));
}

function commonName(text: string): Buffer {
  const attribute = sequence(tag(0x06, Buffer.from("550403", "hex")), tag(0x0c, Buffer.from(text)));
  return sequence(tag(0x31, attribute));
}

function extension(oid: string, value: Buffer): Buffer {
  return sequence(tag(0x06, Buffer.from(oid, "hex")), tag(0x04, value));
}

/** GeneralizedTime in seconds. */
function time(ms: number): Buffer {
  return tag(0x18, Buffer.from(`${new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+Z/g, "")}Z`));
}

function bits(value: Buffer): Buffer {
  return tag(0x03, Buffer.concat([Buffer.of(0), value]));
}

function integer(value: Buffer): Buffer {
  return tag(0x02, value);
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return tag(0x30, Buffer.concat(parts));
}

/** One DER value: tag, length in its shortest form, content. */
function tag(number: number, content: Buffer): Buffer {
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(number, ...size), content]);
}
