import type { Patch } from "../planting.ts";

const store = "services/licensing/src/store/seats.ts";

/** Bugs that the proof of seats has to notice, by name. */
export const planted: Readonly<Record<string, readonly Patch[]>> = {
  /** The naive way: who saw a free seat takes it, though others saw the same one. */
  "check-then-insert": [
    {
      file: store,
      from: "const row = await seatsOf(tx, tenant, licenseId).forNoKeyUpdate().executeTakeFirst();",
      to: "const row = await seatsOf(tx, tenant, licenseId).executeTakeFirst();",
    },
    {
      file: store,
      from: "AND seats_used < least(seats_max, $" + "{MAX_SEATS}::integer)",
      to:
        "AND (SELECT s.seats_used < least(s.seats_max, $" +
        "{MAX_SEATS}::integer) FROM license_seats s WHERE s.tenant_id = $" +
        "{tenant} AND s.license_id = $" +
        "{licenseId})",
    },
  ],
  /** A license gets fewer seats than are taken, where its product refuses that. */
  "lowering unchecked": [
    {
      file: "services/licensing/src/lifecycle.ts",
      from: "await checkSeatsFit(ctx, tx, tenant, license, changed);",
      to: "void checkSeatsFit;",
    },
  ],
};
