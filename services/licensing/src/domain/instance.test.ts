import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { canonicalInstance, type InstanceRules, type InstanceType, sameMachine } from "./instance.ts";

const plain: InstanceRules = {
  types: [],
  ignoreWww: false,
  ignorePath: false,
  keepHostnameCase: false,
  minMatchingComponents: 0,
};
const idOf = (type: InstanceType, id: string, rules: Partial<InstanceRules> = {}) =>
  canonicalInstance({ type, id, components: new Map() }, { ...plain, ...rules }).id;
const violation = (field: string, description: string | RegExp) => ({
  reason: "INVALID_FIELD",
  violations: [{ field, description: expect.stringMatching(description) }],
});

describe("URLs", () => {
  test.each([
    ["https://example.com", "example.com"],
    ["http://example.com", "example.com"],
    ["HTTPS://Example.COM/", "example.com"],
    ["example.com", "example.com"],
    ["example.com.", "example.com"],
    ["  https://example.com  ", "example.com"],
    ["https://example.com:443/", "example.com"],
    ["http://example.com:80", "example.com"],
    ["http://example.com:443", "example.com"],
    ["https://example.com:8443/", "example.com:8443"],
    ["localhost:8080", "localhost:8080"],
    ["https://example.com/Shop/", "example.com/Shop"],
    ["https://example.com/shop//", "example.com/shop"],
    ["https://example.com/a/../shop/./", "example.com/shop"],
    ["https://example.com/%7eann/%c3%a9%2f", "example.com/~ann/%C3%A9%2F"],
    ["https://example.com/é", "example.com/%C3%A9"],
    ["https://example.com/100%", "example.com/100%25"],
    ["https://example.com/%%341", "example.com/%2541"],
    ["https://example.com/%2541", "example.com/%2541"],
    ["https://münchen.example/", "xn--mnchen-3ya.example"],
    ["https://MÜNCHEN.example/", "xn--mnchen-3ya.example"],
    ["https://mu\u0308nchen.example/", "xn--mnchen-3ya.example"],
    ["https://xn--mnchen-3ya.example/", "xn--mnchen-3ya.example"],
    ["https://例え.テスト/", "xn--r8jz45g.xn--zckzah"],
    ["http://127.0.0.1:8080/x", "127.0.0.1:8080/x"],
    ["http://0x7f.1/", "127.0.0.1"],
    ["http://[2001:DB8:0:0::1]:8080/", "[2001:db8::1]:8080"],
    ["https://www.example.com/", "www.example.com"],
  ])("%s is %s", (given, canonical) => expect(idOf("url", given)).toBe(canonical));

  test.each([
    ["https://www.example.com/shop", "example.com/shop"],
    ["https://WWW.www.example.com", "example.com"],
    ["https://www.com/", "www.com"],
    ["https://www2.example.com/", "www2.example.com"],
  ])("without www. %s is %s", (given, canonical) => expect(idOf("url", given, { ignoreWww: true })).toBe(canonical));

  test("without the path all sites of a host are one", () => {
    expect(idOf("url", "https://example.com:8080/a/b", { ignorePath: true })).toBe("example.com:8080");
  });

  test.each([
    ["", "must be the address of a site"],
    ["https://", "must be the address of a site"],
    ["https://exa mple.com", "without blanks"],
    ["https://exa\tmple.com", "without blanks"],
    ["ftp://example.com", "must begin with https:// or http://, not ftp://"],
    ["javascript://example.com/%0aalert(1)", "must begin with https://"],
    ["https://user:secret@example.com/", "without a user"],
    ["https://example.com@evil.example/", "without a user"],
    ["https://example.com/?page=2", "without a query"],
    ["https://example.com/#top", "without a query"],
    ["https://example..com", "name of a host"],
    ["https://example.0x7", "must be the address of a site"],
    ["https://-example.com", "name of a host"],
    ["https://exa$mple.com", "name of a host"],
    ["https://example.com:99999", "must be the address of a site"],
    [`https://${"a".repeat(64)}.example`, "name of a host"],
    [`https://example.com/${"é".repeat(400)}`, "at most 2048 characters"],
  ])("%j is refused: %s", (given, description) => {
    expect(() => idOf("url", given)).toThrow(expect.objectContaining(violation("instance.id", description)));
  });

  // A host whose last label is a number, `0x7` as well, is an IPv4 address by the URL standard.
  const label = fc
    .stringMatching(/^[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?$/)
    .filter((text) => !text.startsWith("xn--") && !/^0x[0-9a-f]*$/.test(text));
  const segment = fc.stringMatching(/^[A-Za-z0-9_~-]{1,6}(%[2-7][0-9a-fA-F]){0,2}$/);
  const anySite = fc.record({
    labels: fc.array(label, { minLength: 1, maxLength: 4 }).filter((labels) => /[a-z-]/.test(labels.at(-1) ?? "")),
    port: fc.constantFrom("", ":8080", ":1"),
    path: fc.array(segment, { maxLength: 3 }),
  });

  test("property: what makes no other site changes nothing, and what is canonical stays", () => {
    fc.assert(
      fc.property(
        anySite,
        fc.record({
          scheme: fc.constantFrom("http://", "https://", "HTTPS://", ""),
          upper: fc.boolean(),
          dot: fc.constantFrom("", "."),
          port: fc.constantFrom("", ":80", ":443"),
          slashes: fc.constantFrom("", "/", "//"),
          blanks: fc.constantFrom("", " "),
        }),
        fc.record({ ignoreWww: fc.boolean(), ignorePath: fc.boolean() }),
        ({ labels, port, path }, written, rules) => {
          const host = labels.join(".");
          const plainly = idOf("url", `https://${host}${port}/${path.join("/")}`, rules);
          const otherwise = [
            written.blanks,
            written.scheme,
            written.upper ? host.toUpperCase() : host,
            written.dot,
            port === "" ? written.port : port,
            path.length === 0 ? "" : `/${path.join("/")}`,
            written.slashes,
            written.blanks,
          ].join("");
          expect(idOf("url", otherwise, rules)).toBe(plainly);
          expect(idOf("url", plainly, rules)).toBe(plainly);
        },
      ),
    );
  });

  test("property: other hosts, ports and paths are other sites", () => {
    fc.assert(
      fc.property(anySite, anySite, (one, other) => {
        const text = ({ labels, port, path }: typeof one) =>
          `https://${labels.join(".")}${port}/${path.map((part) => decodeURIComponent(part)).join("/")}`;
        const url = ({ labels, port, path }: typeof one) => `https://${labels.join(".")}${port}/${path.join("/")}`;
        fc.pre(text(one) !== text(other));
        expect(idOf("url", url(one))).not.toBe(idOf("url", url(other)));
      }),
    );
  });

  test("property: any text is refused by its field or gives what is canonical", () => {
    const anyText = fc.oneof(fc.string({ unit: "binary", maxLength: 60 }), fc.webUrl(), fc.domain());
    fc.assert(
      fc.property(
        anyText,
        fc.constantFrom<InstanceType>("url", "hostname", "machine_id", "deployment"),
        (text, type) => {
          const first = read(type, text);
          if (typeof first === "string") expect(read(type, first)).toBe(first);
          else expect(first).toMatchObject({ violations: [{ field: "instance.id" }] });
        },
      ),
      { numRuns: 2_000 },
    );
  });

  function read(type: InstanceType, text: string): unknown {
    try {
      return idOf(type, text, { ignoreWww: true });
    } catch (error) {
      return error;
    }
  }
});

describe("hostnames", () => {
  test.each([
    ["Web-01", "web-01"],
    ["web-01.Example.COM.", "web-01.example.com"],
    ["_dc.corp", "_dc.corp"],
    ["München", "xn--mnchen-3ya"],
    ["10.0.0.1", "10.0.0.1"],
  ])("%s is %s", (given, canonical) => expect(idOf("hostname", given)).toBe(canonical));

  test("keep their case where the product wants it", () => {
    expect(idOf("hostname", "Web-01", { keepHostnameCase: true })).toBe("Web-01");
    expect(idOf("hostname", "MÜNCHEN", { keepHostnameCase: true })).toBe("xn--mnchen-3ya");
  });

  test.each(["", ".", "a b", "a/b", "ü/b", "ü?x", "a..b", "-a", "a-", `${"a.".repeat(127)}aa`, "http://a"])(
    "%j is refused",
    (given) => {
      expect(() => idOf("hostname", given)).toThrow(
        expect.objectContaining(violation("instance.id", "name of a host, such as shop.example.com")),
      );
    },
  );
});

describe("machine ids and deployments", () => {
  test.each([
    ["{4C4C4544-0033-3510-8052-B4C04F4E3132}", "4c4c4544003335108052b4c04f4e3132"],
    ["4c4c4544-0033-3510-8052-b4c04f4e3132", "4c4c4544003335108052b4c04f4e3132"],
    ["Serial-XY7", "Serial-XY7"],
  ])("%s is %s", (given, canonical) => expect(idOf("machine_id", given)).toBe(canonical));

  test.each(["", "a b", "00000000-0000-0000-0000-000000000000", "FFFFFFFFFFFFFFFF", "é", "x".repeat(256)])(
    "the machine id %j is refused",
    (given) => {
      expect(() => idOf("machine_id", given)).toThrow(expect.objectContaining(violation("instance.id", /./)));
    },
  );

  test("deployments keep their case", () => {
    expect(idOf("deployment", " Cluster-1/ns:prod ")).toBe("Cluster-1/ns:prod");
    for (const given of ["", "-x", "a b", "x".repeat(256)]) {
      expect(() => idOf("deployment", given)).toThrow(expect.objectContaining(violation("instance.id", "must begin")));
    }
  });

  test("a type that the product has not is refused", () => {
    const rules: Partial<InstanceRules> = { types: ["url", "machine_id"] };
    expect(() => idOf("hostname", "a", rules)).toThrow(
      expect.objectContaining(violation("instance.type", "must be one of INSTANCE_TYPE_URL, INSTANCE_TYPE_MACHINE_ID")),
    );
    expect(idOf("url", "a.example", rules)).toBe("a.example");
  });
});

describe("machines by components", () => {
  const componentsOf = (components: Record<string, string>, minMatchingComponents = 0) =>
    canonicalInstance(
      { type: "machine_id", id: "", components: new Map(Object.entries(components)) },
      { ...plain, minMatchingComponents },
    ).components;

  test("are written alike: by name, in lower case, addresses without separators", () => {
    const one = componentsOf({ mac: "00:1A:2B:3C:4D:5E", cpu: " Xeon-1 " });
    expect([...one]).toEqual([
      ["cpu", "xeon-1"],
      ["mac", "001a2b3c4d5e"],
    ]);
    expect(componentsOf({ cpu: "XEON-1", mac: "001a2b3c4d5e" })).toEqual(one);
  });

  test("that say nothing, or are too few, are refused", () => {
    for (const mac of ["00:00:00:00:00:00", "ffffffffffff", "  "]) {
      expect(() => componentsOf({ mac })).toThrow(
        expect.objectContaining(violation('instance.components["mac"]', "tell this machine from others")),
      );
    }
    expect(() => componentsOf({ cpu: "x" }, 2)).toThrow(
      expect.objectContaining(violation("instance.components", "must be at least 2")),
    );
  });

  const names = ["cpu", "disk", "mac", "board", "bios"];
  const anyMachine = fc
    .array(fc.option(fc.constantFrom("1", "2", "3"), { nil: undefined }), { minLength: 5, maxLength: 5 })
    .map(
      (values) => new Map(values.flatMap((value, index) => (value ? [[names[index] as string, value] as const] : []))),
    );
  const anyThreshold = fc.integer({ min: 1, max: 5 });
  const common = (one: ReadonlyMap<string, string>, other: ReadonlyMap<string, string>) =>
    names.filter((name) => one.has(name) && one.get(name) === other.get(name)).length;
  const find = (presented: ReadonlyMap<string, string>, held: ReadonlyMap<string, string>[], min: number) =>
    sameMachine(
      presented,
      held.map((components) => ({ components })),
      { minMatchingComponents: min },
    )?.components;

  test("property: n equal components make the same machine, n - 1 don't, whichever way it is asked", () => {
    fc.assert(
      fc.property(anyMachine, anyMachine, anyThreshold, (one, other, min) => {
        expect(find(one, [other], min) !== undefined).toBe(common(one, other) >= min);
        expect(find(other, [one], min) !== undefined).toBe(find(one, [other], min) !== undefined);
      }),
    );
  });

  test("property: of several the one with the most equal components is it, of those the first", () => {
    fc.assert(
      fc.property(anyMachine, fc.array(anyMachine, { maxLength: 6 }), anyThreshold, (presented, held, min) => {
        const most = Math.max(0, ...held.map((machine) => common(presented, machine)));
        const expected = most >= min ? held.find((machine) => common(presented, machine) === most) : undefined;
        expect(find(presented, held, min)).toBe(expected);
      }),
    );
  });

  test("property: a wider threshold never finds less", () => {
    fc.assert(
      fc.property(anyMachine, fc.array(anyMachine, { maxLength: 6 }), anyThreshold, (presented, held, min) => {
        if (find(presented, held, min + 1)) expect(find(presented, held, min)).toBe(find(presented, held, min + 1));
      }),
    );
  });

  test("where all have to be equal, nothing is looked for by similarity", () => {
    expect(find(new Map([["cpu", "1"]]), [new Map([["cpu", "1"]])], 0)).toBeUndefined();
  });
});
