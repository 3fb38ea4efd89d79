import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "@jest/globals";
import { ValidateFeatureRequestSchema } from "@licet/contracts/licet/validation/v1/validation_service_pb";
import { toQuestion } from "./convert.ts";

describe("toQuestion", () => {
  test("takes the product out of the context: the rest are values of metrics", () => {
    const request = create(ValidateFeatureRequestSchema, {
      customerId: "nile-brokers",
      feature: "egx_access",
      context: { product: "trading", users: "5" },
    });
    expect(toQuestion(request)).toEqual({
      customerId: "nile-brokers",
      feature: "egx_access",
      product: "trading",
      values: new Map([["users", "5"]]),
    });
  });

  test("finds nothing in a context that the caller did not put there", () => {
    const { product, values } = toQuestion(create(ValidateFeatureRequestSchema, { customerId: "a", feature: "b" }));
    expect(product).toBeUndefined();
    expect(values.get("constructor")).toBeUndefined();
  });
});
