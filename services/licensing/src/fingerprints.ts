import { hash } from "node:crypto";
import {
  type Components,
  canonicalInstance,
  type InstanceRules,
  type InstanceType,
  type NamedInstance,
} from "./domain/instance.ts";

/** An instance as it is stored and found. */
export interface Identity {
  readonly type: InstanceType;
  /** What people know it by; of a machine known by components the beginning of its fingerprint. */
  readonly id: string;
  /** SHA-256, 32 bytes: equal for the same instance. */
  readonly fingerprint: Buffer;
  /** SHA-256 of each component's name and value, in hex: a disk's serial number is nobody's business. */
  readonly components: Components;
}

/**
 * Identifies an instance under the rules of its product.
 *
 * @throws ServiceError INVALID_ARGUMENT that names the field, see {@link canonicalInstance}
 */
export function identify(instance: NamedInstance, rules: InstanceRules): Identity {
  const { type, id, components: values } = canonicalInstance(instance, rules);
  if (values.size === 0) return { type, id, fingerprint: sha256(type, id), components: new Map() };
  const components = new Map(Array.from(values, ([name, value]) => [name, sha256(name, value).toString("hex")]));
  const fingerprint = sha256(type, "", ...components.values());
  return { type, id: `machine-${fingerprint.toString("hex", 0, 6)}`, fingerprint, components };
}

function sha256(...parts: readonly string[]): Buffer {
  return hash("sha256", parts.join("\0"), "buffer");
}
