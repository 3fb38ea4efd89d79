import { readFile } from "node:fs/promises";
import * as grpc from "@grpc/grpc-js";

/** Paths of PEM files by which a process proves who it is and judges others: mutual TLS. */
export interface TlsFiles {
  /** The certificate authority that both sides' certificates must come from, and no other. */
  readonly ca: string;
  /** This process's certificate, for its names and addresses; intermediate ones behind it. */
  readonly cert: string;
  /** The certificate's private key. */
  readonly key: string;
}

/** The content of {@link TlsFiles}, and whom to expect. */
export interface TlsIdentity {
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
  /**
   * The name that the certificates of servers must carry; the host of the target without it. Targets that name addresses
   * need it: Node takes no address as a name of TLS.
   */
  readonly serverName?: string | undefined;
}

/** Reads the files. @throws Error in one sentence that names the file that can't be read. */
export async function readTlsFiles(files: TlsFiles): Promise<TlsIdentity> {
  const [ca, cert, key] = await Promise.all([readTlsFile(files.ca), readTlsFile(files.cert), readTlsFile(files.key)]);
  return { ca, cert, key };
}

/** Reads a certificate or key. @throws Error in one sentence that names the file when it can't be read. */
export async function readTlsFile(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new Error(`cannot read the TLS file ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** For a server that takes only callers with a certificate of its authority; cleartext without an identity. */
export function serverCredentials(identity: TlsIdentity | undefined): grpc.ServerCredentials {
  if (identity === undefined) return grpc.ServerCredentials.createInsecure();
  const { ca, cert, key } = identity;
  return grpc.ServerCredentials.createSsl(ca, [{ cert_chain: cert, private_key: key }], true);
}

/** The name that a channel asks for and expects, where the identity says so. */
export function nameOptions(tls: boolean | TlsIdentity): grpc.ChannelOptions {
  const name = typeof tls === "object" ? tls.serverName : undefined;
  return name === undefined ? {} : { "grpc.ssl_target_name_override": name, "grpc.default_authority": name };
}

/** For a client that shows its certificate and trusts only its authority; the system's ones with `true`. */
export function channelCredentials(tls: boolean | TlsIdentity): grpc.ChannelCredentials {
  if (tls === false) return grpc.credentials.createInsecure();
  if (tls === true) return grpc.credentials.createSsl();
  return grpc.credentials.createSsl(tls.ca, tls.key, tls.cert);
}
