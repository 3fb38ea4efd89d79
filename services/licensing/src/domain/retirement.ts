/**
 * Something of the catalogue that is sold no more, or again. Who has it keeps it.
 *
 * @param retired - undefined: as before
 */
export function retire<T extends { retiredAt?: Date }>(before: T, retired: boolean | undefined, now: Date): T {
  if (retired === undefined) return before;
  const { retiredAt, ...rest } = before;
  // The rest of a T and a time make a T: retiredAt is optional in it.
  return (retired ? { ...rest, retiredAt: retiredAt ?? now } : rest) as T;
}
