import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import type { SharedCache, SharedValue } from "../shared-cache/shared-cache.ts";

/** A value that is easy to tell from others. */
export function sharedValue(version: bigint, readAtMs = 1_000, text = `version ${version}`): SharedValue {
  return { version, readAtMs, bytes: Buffer.from(text) };
}

/**
 * Runs every case against an implementation.
 *
 * @param keeps whether it keeps what it was given, as long as nothing happens to it.
 */
export function sharedCacheConformance(name: string, keeps: boolean, open: () => Promise<SharedCache>): void {
  describe(`${name} keeps what the shared cache promises`, () => {
    let cache: SharedCache;
    let key = "";
    let keys = 0;
    beforeEach(async () => {
      cache = await open();
      key = `key-${process.pid}-${Date.now()}-${keys++}`;
    });
    afterEach(() => cache.stop());

    /** What is there for a key, in comparable form. */
    const held = async (of = key) => {
      const value = await cache.get(of);
      return value && sharedValue(value.version, value.readAtMs, Buffer.from(value.bytes).toString());
    };
    const expected = (value: SharedValue) => (keeps ? value : undefined);

    test("a key that was never put has no value", async () => {
      expect(await held()).toBeUndefined();
    });

    test("a value comes back as it was put, and for its key only", async () => {
      const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
      await cache.put(key, { version: 3n, readAtMs: 1_893_456_000_123, bytes });
      const found = await cache.get(key);
      if (keeps)
        expect({ ...found, bytes: [...(found?.bytes ?? [])] }).toEqual({
          version: 3n,
          readAtMs: 1_893_456_000_123,
          bytes: [...bytes],
        });
      else expect(found).toBeUndefined();
      expect(await held(`${key}/other`)).toBeUndefined();
    });

    test("a lower version never replaces a higher one, beyond 2^53 and across lengths", async () => {
      for (const [high, low] of [
        [10n, 9n],
        [2n ** 53n + 1n, 2n ** 53n],
        [2n ** 63n - 1n, 2n ** 62n],
      ] as const) {
        const own = `${key}/${high}`;
        await cache.put(own, sharedValue(high));
        await cache.put(own, sharedValue(low, 9_999));
        expect(await held(own)).toEqual(expected(sharedValue(high)));
      }
    });

    test("of one version the one that was read last stays", async () => {
      await cache.put(key, sharedValue(5n, 2_000));
      await cache.put(key, sharedValue(5n, 1_000));
      expect(await held()).toEqual(expected(sharedValue(5n, 2_000)));
      await cache.put(key, sharedValue(5n, 10_000));
      expect(await held()).toEqual(expected(sharedValue(5n, 10_000)));
    });

    test("whatever the order of many puts at once, the highest version stays", async () => {
      const versions = Array.from({ length: 100 }, (_, index) => BigInt((index * 37) % 100));
      await Promise.all(versions.map((version) => cache.put(key, sharedValue(version))));
      expect(await held()).toEqual(expected(sharedValue(99n)));
    });

    test("after the stop there is neither a value nor an error", async () => {
      await cache.put(key, sharedValue(1n));
      await cache.stop();
      await cache.put(key, sharedValue(2n));
      expect(await held()).toBeUndefined();
    });
  });
}
