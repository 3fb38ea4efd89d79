import type { FieldMask } from "@bufbuild/protobuf/wkt";
import { invalidArgument } from "@licet/platform/errors";

/** What each path of a mask takes over from a request. */
export type Readers<R, U> = Readonly<Record<string, (request: R) => U>>;

/**
 * What an update's mask names, out of its request. To be read before the request is run once: what a mask can't name may
 * have no form in JSON, by which requests are compared.
 *
 * @throws ServiceError INVALID_ARGUMENT when it names nothing, or what can't be changed
 */
export function readMask<R extends { readonly updateMask?: FieldMask | undefined }, U extends object>(
  readers: Readers<R, U>,
  request: R,
): U {
  const paths = request.updateMask?.paths ?? [];
  const known = Object.keys(readers).join(", ");
  if (paths.length === 0) throw invalidArgument("update_mask", `must name at least one of ${known}`);
  const named = paths.map((path) => {
    const read = Object.hasOwn(readers, path) ? readers[path] : undefined;
    if (!read) throw invalidArgument("update_mask", `names ${JSON.stringify(path)}; it can name ${known}`);
    return read(request);
  });
  return Object.assign({}, ...named) as U;
}

/**
 * The name that an update gives.
 *
 * @throws ServiceError INVALID_ARGUMENT when it is empty
 */
export function nameOf({ name }: { readonly name: string }): { name: string } {
  if (name === "") throw invalidArgument("name", "must have at least 1 character");
  return { name };
}
