import { v7 } from "uuid";

/** A new UUIDv7: unique, and sorting by the time of its making (in this process even within a millisecond). */
export function newId(): string {
  return v7();
}
