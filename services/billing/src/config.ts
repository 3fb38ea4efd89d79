import { address } from "@licet/mesh/settings";
import { z } from "zod";

/** What the billing service can be told. */
export interface Config {
  /** ISO 4217: the currency of a total where nothing is charged and nothing is priced. */
  readonly defaultCurrency: string;
}

/** What suits most (product.md, H1). */
export const defaults: Config = { defaultCurrency: "USD" };

/** The settings of the process that billing is alone in. */
export const settings = z.object({
  LICENSING_ADDRESS: address("Where licensing is, which is asked for licenses and prices and about API keys."),
  METERING_ADDRESS: address("Where usage metering is, which is asked for the usage of a month."),
  DEFAULT_CURRENCY: z
    .string()
    .regex(/^[A-Z]{3}$/, "is no currency")
    .default(defaults.defaultCurrency)
    .meta({
      title: "The currency of a total where nothing is charged and nothing is priced.",
      description: "a code of ISO 4217 such as USD",
    }),
});

/** What the settings say about billing. */
export function toConfig(set: z.output<typeof settings>): Config {
  return { defaultCurrency: set.DEFAULT_CURRENCY };
}
