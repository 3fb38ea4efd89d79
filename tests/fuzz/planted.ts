import type { Patch } from "../planting.ts";

/** Bugs that the suite has to notice, by name; what each of them breaks is the check that must fail. */
export const planted: Readonly<Record<string, readonly Patch[]>> = {
  /** A slot is free as soon as its caller left: rapid resets run any number of handlers. */
  "slot freed on cancel": [
    {
      file: "packages/platform/src/rpc/middleware/slots.ts",
      from: "abandoned.then(free, free);",
      to: "free();",
    },
  ],
  /** Handlers that wait for the database pile up: without this, too few get stuck to show that slots are lost. */
  "transactions wait without a limit": [
    {
      file: "packages/platform/src/database/database.ts",
      from: "if (pool.waitingCount < maxWaiting) return pool.connect();",
      to: "if (maxWaiting > 0) return pool.connect();",
    },
  ],
  /** What can't be decoded is answered as a fault of ours, in the decoder's words. */
  "decoder's errors unhandled": [
    {
      file: "packages/platform/src/rpc/codec.ts",
      from: "return fromBinary(schema, bytes);\n  } catch (error) {\n    throw malformed(schema, error);",
      to: "return fromBinary(schema, bytes);\n  } catch (error) {\n    throw error;",
    },
  ],
};
