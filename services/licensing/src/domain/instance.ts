import { invalidArgument } from "@licet/platform/errors";

/** By what an installation of a product is known. */
export type InstanceType = "url" | "hostname" | "machine_id" | "deployment";

/** What counts as the same instance; a property of the product. */
export interface InstanceRules {
  /** The types that the product has; all when empty. */
  readonly types: readonly InstanceType[];
  /** Whether `www.example.com` is the same site as `example.com`. */
  readonly ignoreWww: boolean;
  /** Whether all sites of a host are one. */
  readonly ignorePath: boolean;
  /** Whether hostnames that differ in case only are different hosts. */
  readonly keepHostnameCase: boolean;
  /** So many equal components make the same machine; 0: all of them, and no others. */
  readonly minMatchingComponents: number;
}

/** An instance as it names itself. */
export interface NamedInstance {
  readonly type: InstanceType;
  /** Empty for a machine that is known by components. */
  readonly id: string;
  /** Values by name. */
  readonly components: ReadonlyMap<string, string>;
}

/** What an instance is told from others by, however it was written. */
export interface CanonicalInstance {
  readonly type: InstanceType;
  /** As the rules write it; empty for a machine that is known by components. */
  readonly id: string;
  /** By name, in the order of names; empty where the instance is not known by components. */
  readonly components: Components;
}

/** A machine's components: their values, or hashes of them, by name. */
export type Components = ReadonlyMap<string, string>;

/** The contract's bound for what was given holds also for what the rules make of it. */
const MAX_ID = 2048;
const MAX_HOST = 253;
const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i;

/**
 * What an instance is known by under a product's rules: equal for what they count as the same.
 *
 * @throws ServiceError INVALID_ARGUMENT that names the field, what is wrong and what would be right
 */
export function canonicalInstance(instance: NamedInstance, rules: InstanceRules): CanonicalInstance {
  const { type } = instance;
  if (rules.types.length > 0 && !rules.types.includes(type)) {
    const types = rules.types.map((known) => `INSTANCE_TYPE_${known.toUpperCase()}`).join(", ");
    throw invalidArgument("instance.type", `must be one of ${types}: the product has no other instances`);
  }
  if (instance.components.size > 0) return { type, id: "", components: canonicalComponents(instance, rules) };
  const id = canonicalId(instance, rules);
  if (id.length > MAX_ID) throw invalidId(`must have at most ${MAX_ID} characters, blanks and accents as %XX`);
  return { type, id, components: new Map() };
}

function canonicalId({ type, id }: NamedInstance, rules: InstanceRules): string {
  const text = id.trim().normalize("NFC");
  switch (type) {
    case "url":
      return canonicalUrl(text, rules);
    case "hostname":
      return canonicalHost(text, rules.keepHostnameCase);
    case "machine_id":
      return canonicalMachineId(text);
    case "deployment":
      if (/^[a-z0-9][a-z0-9._:/@-]{0,254}$/i.test(text)) return text;
      throw invalidId("must begin with a letter or digit and have at most 255 of letters, digits and . _ : / @ -");
  }
}

/**
 * The address of a site without what makes no other site: scheme, port 80 or 443, slashes at the end, case of the host, and
 * by the rules `www.` and the path. Host and path are written as WHATWG's URL standard has it, so that an international name
 * is its ASCII form, and a path's escapes as RFC 3986 (6.2.2) normalises them.
 */
function canonicalUrl(text: string, { ignoreWww, ignorePath }: InstanceRules): string {
  if (/[\s\p{Cc}]/u.test(text)) throw invalidId("must be an address without blanks");
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `https://${text}`);
  if (!url) throw invalidId("must be the address of a site, such as https://example.com/shop");
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw invalidId(`must begin with https:// or http://, not ${url.protocol}//`);
  }
  if (url.username !== "" || url.password !== "") throw invalidId("must be without a user and password");
  if (url.search !== "" || url.hash !== "") throw invalidId("must be without a query (?) and fragment (#)");
  const literal = url.hostname.startsWith("[");
  const host = literal ? url.hostname : withoutWww(canonicalHost(url.hostname, false), ignoreWww);
  const port = ["", "80", "443"].includes(url.port) ? "" : `:${url.port}`;
  return `${host}${port}${ignorePath ? "" : canonicalPath(url.pathname)}`;
}

/** A host of one label behind `www.` is a name of its own: `www.com`. */
function withoutWww(host: string, ignoreWww: boolean): string {
  return ignoreWww ? host.replace(/^(?:www\.)+(?=[^.]+\.)/, "") : host;
}

function canonicalPath(path: string): string {
  const escaped = path.replaceAll(/%([0-9a-f]{2})?/gi, (octet, digits?: string) => {
    // A percent sign that escapes nothing stands for itself: left alone, it could become the beginning of an escape.
    if (digits === undefined) return "%25";
    const character = String.fromCharCode(Number.parseInt(digits, 16));
    return /[a-z0-9._~-]/i.test(character) ? character : octet.toUpperCase();
  });
  return escaped.replace(/\/+$/, "");
}

/** A host's name without the dot at its end; an international one in ASCII (UTS 46). */
function canonicalHost(text: string, keepCase: boolean): string {
  const name = text.replace(/\.$/, "");
  const ascii = /^[\x20-\x7e]*$/.test(name) ? name : asciiHost(name);
  if (ascii === "" || ascii.length > MAX_HOST || !ascii.split(".").every((part) => label.test(part))) {
    throw invalidId(
      "must have the name of a host, such as shop.example.com: at most 253 characters, between dots 1 to 63 of letters, digits, - and _",
    );
  }
  return keepCase ? ascii : ascii.toLowerCase();
}

/** An international name in ASCII; empty where there is none. */
function asciiHost(name: string): string {
  return /[\s/?#@:\\]/.test(name) ? "" : (URL.parse(`https://${name}`)?.hostname ?? "");
}

/** UUIDs and other hexadecimal ids are the same in any case, with or without dashes and braces. */
function canonicalMachineId(text: string): string {
  const bare = text.replace(/^\{(.*)\}$/, "$1").replaceAll("-", "");
  const id = /^[0-9a-f]{16,}$/i.test(bare) ? bare.toLowerCase() : text;
  if (!/^[\x21-\x7e]{1,255}$/.test(id)) throw invalidId("must have 1 to 255 characters of ASCII without blanks");
  if (saysNothing(id)) throw invalidId("must tell this machine from others: it is one character over and over");
  return id;
}

function canonicalComponents({ components }: NamedInstance, { minMatchingComponents }: InstanceRules): Components {
  if (components.size < minMatchingComponents) {
    const description = `must be at least ${minMatchingComponents}, of which so many have to be equal`;
    throw invalidArgument("instance.components", description);
  }
  const sorted = [...components].sort(([one], [other]) => (one < other ? -1 : 1));
  return new Map(sorted.map(([name, value]) => [name, canonicalComponent(name, value)]));
}

/** Tools write serial numbers in either case, and hardware addresses with colons, dashes or neither. */
function canonicalComponent(name: string, given: string): string {
  const value = given.trim().normalize("NFC").toLowerCase();
  const bare = value.replaceAll(/[:-]/g, "");
  if (value === "" || saysNothing(bare)) {
    const description = "must tell this machine from others: it is empty, or one character over and over";
    throw invalidArgument(`instance.components[${JSON.stringify(name)}]`, description);
  }
  return /^[0-9a-f]{12}$/.test(bare) ? bare : value;
}

/** What firmware says that was never told its number: zeros, or Fs. */
function saysNothing(text: string): boolean {
  return text.length > 3 && new Set(text).size === 1;
}

/** How many components two machines have in common, of the same name and value. */
function commonComponents(one: Components, other: Components): number {
  return [...one].filter(([name, value]) => other.get(name) === value).length;
}

/**
 * Which of the machines that hold a seat is the one that presents these components: the one with the most equal ones,
 * among several the first, if they are at least so many as the rules want. Where they want all, a machine is found by its
 * fingerprint and not here.
 *
 * @param candidates - oldest first
 */
export function sameMachine<T extends { readonly components: Components }>(
  presented: Components,
  candidates: readonly T[],
  { minMatchingComponents }: Pick<InstanceRules, "minMatchingComponents">,
): T | undefined {
  if (minMatchingComponents === 0) return undefined;
  let best: { candidate: T; equal: number } | undefined;
  for (const candidate of candidates) {
    const equal = commonComponents(presented, candidate.components);
    if (equal >= minMatchingComponents && equal > (best?.equal ?? 0)) best = { candidate, equal };
  }
  return best?.candidate;
}

function invalidId(description: string): Error {
  return invalidArgument("instance.id", description);
}
