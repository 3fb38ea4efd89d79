import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type AddOnTermsSchema,
  Cycle,
  Enforcement,
  KeyFormat,
  LicenseType,
  LimitWindow,
  type PlanTermsSchema,
} from "@licet/contracts/licet/licensing/v1/catalog_pb";
import { InstanceType, type SeatPolicySchema } from "@licet/contracts/licet/licensing/v1/seat_pb";

/** The demo data: what tenants, docs and tests can count on. Ids and data are fixed; times hang on the day of loading. */
export interface DemoTenant {
  readonly tenantId: string;
  readonly name: string;
  readonly products: readonly DemoProduct[];
  readonly customers: readonly DemoCustomer[];
}

/** A product with its features and plans. */
export interface DemoProduct {
  readonly product: string;
  readonly name: string;
  readonly graceDays: number;
  /** How many days an installation may go on without asking; none when absent. */
  readonly offlineDays?: number;
  /** How its license keys look; it has none when absent. */
  readonly keys?: { readonly keyFormat: KeyFormat; readonly keyPrefix: string };
  /** How the seats of its licenses are held; node-locked, without a lease, when absent. */
  readonly seatPolicy?: MessageInitShape<typeof SeatPolicySchema>;
  /** Names by code. */
  readonly features: Readonly<Record<string, string>>;
  /** Features that suspended and expired licenses keep for reducing what is open. */
  readonly reduceOnly?: readonly string[];
  readonly plans: readonly DemoPlan[];
  /** Add-ons to the plans; none when absent. */
  readonly addOns?: readonly DemoAddOn[];
}

/** A plan with its first version. */
export interface DemoPlan {
  readonly plan: string;
  readonly name: string;
  readonly terms: MessageInitShape<typeof PlanTermsSchema>;
}

/** An add-on with its first version. */
export interface DemoAddOn {
  readonly addOn: string;
  readonly name: string;
  readonly terms: MessageInitShape<typeof AddOnTermsSchema>;
}

/** A customer with its licenses and usage. */
export interface DemoCustomer {
  readonly customerId: string;
  readonly name: string;
  readonly email: string;
  readonly industry: string;
  readonly employeeCount: number;
  readonly licenses: readonly DemoLicense[];
  readonly usage: readonly DemoUsage[];
}

/** A license as it is provisioned, and what then happens to it. */
export interface DemoLicense {
  readonly licenseId: string;
  readonly product: string;
  readonly plan: string;
  /** When it begins and ends; the plan's term when no end is given. */
  readonly valid: (today: Date) => { from: Date; until?: Date };
  readonly billingCycle?: Cycle;
  /** How many units of which add-ons it holds; none when absent. */
  readonly addOns?: readonly { readonly addOn: string; readonly quantity: number }[];
  /** `new` for a license key of its own, or the id of an earlier license whose key it comes under. */
  readonly key?: string;
  /** Who holds its seats; only where it has a key of its own. */
  readonly seats?: readonly DemoSeat[];
  /** Why it is suspended right after it began. */
  readonly suspendedFor?: string;
}

/** An installation that holds a seat. */
export interface DemoSeat {
  readonly type: InstanceType;
  readonly id: string;
  readonly displayName: string;
  readonly version: string;
}

/** A daily amount of something used. */
export interface DemoUsage {
  readonly metric: string;
  readonly feature?: string;
  readonly licenseId: string;
  /** First and last day, counted from today; the last days lie in the past. */
  readonly days: (today: Date) => { first: number; last: number };
  /** The typical amount of a working day; weekends have less, and every day differs a little. */
  readonly typical?: number;
  /** The same amount every day, in place of `typical`. */
  readonly exactly?: string;
}

/** So many days of usage are loaded. */
const USAGE_DAYS = 90;

/** The license that is provisioned last: where it exists, everything does. */
export const LAST_LICENSE = { tenantId: "localmind", licenseId: demoId(33) } as const;

/** One seat for each site, with or without `www.`. */
const perSite = { instanceTypes: [InstanceType.URL], ignoreWww: true };

const { GAUGE, PER_SECOND, PER_DAY, PER_MONTH } = LimitWindow;

function demoId(number: number): string {
  return `01930000-0000-7000-8000-${String(number).padStart(12, "0")}`;
}

/** UTC midnight so many days from today. */
export function dayFrom(today: Date, days: number): Date {
  return new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), today.getUTCDate() + days));
}

const startedDaysAgo = (days: number) => (today: Date) => ({ from: dayFrom(today, -days) });
const daysBack =
  (first: number, last = 1) =>
  () => ({ first: -first, last: -last });

/** A limit; without a maximum it is unlimited, and said to be. */
function limit(metric: string, window: LimitWindow, maximum?: number) {
  return maximum === undefined ? { metric, window } : { metric, window, maximum: BigInt(maximum) };
}

function usd(dollars: number) {
  return { currency: "USD", amountMinor: BigInt(Math.round(dollars * 100)) };
}

function yearly(dollars: number) {
  return { price: usd(dollars), priceCycle: Cycle.YEAR };
}

/** That an add-on can be had with a plan: for so many dollars a year, or for what is agreed. */
function offer(plan: string, dollars: number | "agreed") {
  const pricing =
    dollars === "agreed"
      ? ({ case: "agreed", value: true } as const)
      : ({ case: "price", value: usd(dollars) } as const);
  return { plan, pricing, priceCycle: Cycle.YEAR };
}

const trading: DemoProduct = {
  product: "trading",
  name: "TradSys Trading",
  graceDays: 0,
  features: {
    basic_trading: "Basic trading",
    advanced_orders: "Advanced orders",
    algorithmic_trading: "Algorithmic trading",
    egx_access: "Egyptian Exchange (EGX)",
    adx_access: "Abu Dhabi Securities Exchange (ADX)",
    crypto_trading: "Crypto trading",
    stock_trading: "Stock trading",
    forex_trading: "Forex trading",
    commodity_trading: "Commodity trading",
    islamic_finance: "Islamic finance",
    risk_management: "Risk management",
    portfolio_analytics: "Portfolio analytics",
    reporting: "Reporting",
    api_access: "API access",
    sukuk_trading: "Sukuk trading",
    islamic_funds: "Islamic funds",
    sharia_compliance: "Sharia compliance",
    zakat_calculation: "Zakat calculation",
    halal_screening: "Halal screening",
    middle_east_access: "Middle East exchanges",
    exchange_binance: "Binance (BINANCE)",
    exchange_coinbase: "Coinbase (COINBASE)",
    exchange_kraken: "Kraken (KRAKEN)",
    exchange_egx: "Egyptian Exchange (EGX)",
    exchange_adx: "Abu Dhabi Securities Exchange (ADX)",
    exchange_tadawul: "Saudi Exchange (TADAWUL)",
  },
  // Who may not trade any more may still close what is open.
  reduceOnly: ["basic_trading"],
  plans: [
    {
      plan: "trial",
      name: "Trial",
      terms: {
        type: LicenseType.TRIAL,
        termDays: 30,
        features: ["basic_trading", "exchange_binance"],
        attributes: { support: "community", webhooks: "none" },
        limits: [
          limit("users", GAUGE, 5),
          limit("orders", PER_SECOND, 10),
          limit("stock_assets", GAUGE, 10),
          limit("crypto_assets", GAUGE, 5),
          limit("api_calls", PER_DAY, 1_000),
          limit("api_calls", PER_SECOND, 10),
        ],
      },
    },
    {
      plan: "standard",
      name: "Standard",
      terms: {
        type: LicenseType.STANDARD,
        ...yearly(25_000),
        features: ["basic_trading", "advanced_orders", "exchange_binance", "exchange_coinbase", "exchange_kraken"],
        attributes: { support: "standard", webhooks: "none" },
        grantableFeatures: ["egx_access", "adx_access", "crypto_trading", "forex_trading", "api_access"],
        limits: [
          limit("users", GAUGE, 50),
          limit("orders", PER_SECOND, 1_000),
          limit("stock_assets", GAUGE, 100),
          limit("crypto_assets", GAUGE, 50),
          limit("forex_assets", GAUGE, 25),
          limit("api_calls", PER_DAY, 10_000),
          limit("api_calls", PER_SECOND, 100),
        ],
        usagePrices: [
          {
            metric: "exchange_requests",
            includedPerMonth: 500n,
            unitPrice: { currency: "USD", decimal: "0.0125" },
          },
        ],
      },
    },
    {
      plan: "enterprise",
      name: "Enterprise",
      terms: {
        type: LicenseType.ENTERPRISE,
        ...yearly(50_000),
        features: ["*"],
        attributes: { support: "premium", webhooks: "yes", dedicated_manager: "yes", aaoifi: "full" },
        limits: [
          limit("users", GAUGE),
          limit("orders", PER_SECOND, 100_000),
          limit("api_calls", PER_DAY),
          limit("api_calls", PER_SECOND, 1_000),
        ],
      },
    },
  ],
  addOns: [
    {
      addOn: "middle-east",
      name: "Middle East exchanges",
      terms: {
        features: [
          "middle_east_access",
          "egx_access",
          "adx_access",
          "exchange_egx",
          "exchange_adx",
          "exchange_tadawul",
        ],
        offers: [offer("standard", 15_000)],
        maxQuantity: 1,
      },
    },
    {
      addOn: "islamic-finance",
      name: "Islamic finance",
      terms: {
        features: [
          "islamic_finance",
          "sukuk_trading",
          "islamic_funds",
          "sharia_compliance",
          "zakat_calculation",
          "halal_screening",
        ],
        offers: [offer("standard", 10_000)],
        maxQuantity: 1,
      },
    },
  ],
};

const tradsys: DemoTenant = {
  tenantId: "tradsys",
  name: "TradSys",
  products: [trading],
  customers: [
    {
      customerId: "cairo-capital",
      name: "Cairo Capital",
      email: "desk@cairo-capital.example",
      industry: "asset management",
      employeeCount: 240,
      licenses: [{ licenseId: demoId(1), product: "trading", plan: "enterprise", valid: startedDaysAgo(200) }],
      usage: [
        {
          metric: "api_calls",
          feature: "api_access",
          licenseId: demoId(1),
          days: daysBack(USAGE_DAYS),
          typical: 180_000,
        },
        {
          metric: "exchange_requests",
          feature: "egx_access",
          licenseId: demoId(1),
          days: daysBack(USAGE_DAYS),
          typical: 4_200,
        },
        {
          metric: "orders",
          feature: "advanced_orders",
          licenseId: demoId(1),
          days: daysBack(USAGE_DAYS),
          typical: 9_500,
        },
      ],
    },
    {
      customerId: "nile-brokers",
      name: "Nile Brokers",
      email: "ops@nile-brokers.example",
      industry: "brokerage",
      employeeCount: 60,
      licenses: [
        {
          licenseId: demoId(2),
          product: "trading",
          plan: "standard",
          valid: (today) => ({ from: new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), 1)) }),
          billingCycle: Cycle.MONTH,
        },
      ],
      // No exchange_requests: the tour of the docs tracks those itself and then looks at their price.
      usage: [
        {
          metric: "api_calls",
          licenseId: demoId(2),
          days: (today) => ({ first: 1 - today.getUTCDate(), last: -1 }),
          typical: 3_100,
        },
      ],
    },
    {
      customerId: "trial-desk",
      name: "Trial Desk",
      email: "hello@trial-desk.example",
      industry: "brokerage",
      employeeCount: 4,
      licenses: [{ licenseId: demoId(3), product: "trading", plan: "trial", valid: startedDaysAgo(10) }],
      usage: [{ metric: "api_calls", licenseId: demoId(3), days: daysBack(10), typical: 320 }],
    },
    {
      customerId: "lapsed-fund",
      name: "Lapsed Fund",
      email: "office@lapsed-fund.example",
      industry: "asset management",
      employeeCount: 35,
      licenses: [
        {
          licenseId: demoId(4),
          product: "trading",
          plan: "enterprise",
          valid: (today) => ({ from: dayFrom(today, -400), until: dayFrom(today, -35) }),
        },
      ],
      usage: [
        {
          metric: "api_calls",
          feature: "api_access",
          licenseId: demoId(4),
          days: daysBack(USAGE_DAYS, 36),
          typical: 41_000,
        },
      ],
    },
    {
      customerId: "frozen-desk",
      name: "Frozen Desk",
      email: "desk@frozen-desk.example",
      industry: "brokerage",
      employeeCount: 18,
      licenses: [
        {
          licenseId: demoId(5),
          product: "trading",
          plan: "standard",
          valid: startedDaysAgo(120),
          suspendedFor: "documents of the yearly review are missing",
        },
      ],
      usage: [],
    },
  ],
};

const rankmath: DemoTenant = {
  tenantId: "rankmath",
  name: "RankMath",
  products: [
    {
      product: "rankmath-pro",
      name: "RankMath Pro",
      graceDays: 3,
      keys: { keyFormat: KeyFormat.OPAQUE, keyPrefix: "RM" },
      seatPolicy: perSite,
      features: {
        schema: "Schema generator",
        redirections: "Redirections",
        rank_tracker: "Rank tracker",
        updates: "Updates",
      },
      plans: [
        {
          plan: "pro",
          name: "Pro",
          terms: {
            type: LicenseType.STANDARD,
            ...yearly(95.88),
            features: ["*"],
            limits: [limit("keywords", GAUGE, 500)],
            seats: 5,
          },
        },
      ],
    },
    {
      product: "rankmath-content-ai",
      name: "RankMath Content AI",
      graceDays: 3,
      keys: { keyFormat: KeyFormat.OPAQUE, keyPrefix: "RM" },
      seatPolicy: perSite,
      features: { research: "Keyword research", writing: "AI writing" },
      plans: [
        {
          plan: "creator",
          name: "Creator",
          terms: {
            type: LicenseType.STANDARD,
            ...yearly(71.88),
            features: ["*"],
            limits: [limit("ai_credits", PER_MONTH, 12_000)],
            seats: 5,
          },
        },
      ],
    },
  ],
  customers: [
    {
      customerId: "ada",
      name: "Ada Lindqvist",
      email: "ada@example.com",
      industry: "publishing",
      employeeCount: 1,
      licenses: [
        {
          licenseId: demoId(11),
          product: "rankmath-pro",
          plan: "pro",
          valid: startedDaysAgo(150),
          key: "new",
          seats: [
            { type: InstanceType.URL, id: "https://ada.example", displayName: "Ada's magazine", version: "3.0.62" },
            { type: InstanceType.URL, id: "https://shop.ada.example", displayName: "Shop", version: "3.0.60" },
          ],
        },
        {
          licenseId: demoId(12),
          product: "rankmath-content-ai",
          plan: "creator",
          valid: startedDaysAgo(60),
          key: demoId(11),
        },
      ],
      usage: [{ metric: "ai_credits", feature: "writing", licenseId: demoId(12), days: daysBack(60), typical: 260 }],
    },
  ],
};

const wprocket: DemoTenant = {
  tenantId: "wprocket",
  name: "WP Rocket",
  products: [
    {
      product: "rocket",
      name: "WP Rocket",
      graceDays: 3,
      keys: { keyFormat: KeyFormat.OPAQUE, keyPrefix: "WPR" },
      seatPolicy: perSite,
      features: {
        page_cache: "Page cache",
        lazy_load: "Lazy load",
        database_cleanup: "Database clean-up",
        updates: "Updates",
      },
      plans: [
        {
          plan: "sites-3",
          name: "3 sites",
          terms: { type: LicenseType.STANDARD, ...yearly(119), features: ["*"], seats: 3 },
        },
        {
          plan: "sites-50",
          name: "50 sites",
          terms: { type: LicenseType.STANDARD, ...yearly(299), features: ["*"], seats: 50 },
        },
      ],
    },
  ],
  customers: [
    {
      customerId: "ada",
      name: "Ada Lindqvist",
      email: "ada@example.com",
      industry: "publishing",
      employeeCount: 1,
      licenses: [
        {
          licenseId: demoId(21),
          product: "rocket",
          plan: "sites-3",
          valid: startedDaysAgo(90),
          key: "new",
          seats: [
            { type: InstanceType.URL, id: "https://www.ada.example", displayName: "Ada's magazine", version: "3.17.2" },
          ],
        },
      ],
      usage: [],
    },
  ],
};

const platformFeatures = {
  basic_analytics: "Basic analytics",
  advanced_analytics: "Advanced analytics",
  custom_models: "Custom models",
  white_labeling: "White labeling",
};

const localmind: DemoTenant = {
  tenantId: "localmind",
  name: "LocalMind",
  products: [
    {
      product: "platform",
      name: "LocalMind Platform",
      graceDays: 7,
      features: platformFeatures,
      plans: [
        {
          plan: "starter",
          name: "Starter",
          terms: {
            type: LicenseType.STANDARD,
            ...yearly(30_000),
            features: ["basic_analytics"],
            attributes: {
              model_size: "small",
              support: "e-mail",
              sla: "best effort",
              trainings: "self-service",
              integrations: "none",
            },
            limits: [limit("analysts", GAUGE, 5), softTerabytes(1), limit("api_calls", PER_MONTH, 10_000)],
          },
        },
        {
          plan: "professional",
          name: "Professional",
          terms: {
            type: LicenseType.STANDARD,
            ...yearly(60_000),
            features: ["basic_analytics", "advanced_analytics", "custom_models"],
            attributes: {
              model_size: "medium",
              support: "priority",
              sla: "99.5 %",
              trainings: "2",
              integrations: "limited",
            },
            limits: [limit("analysts", GAUGE, 10), softTerabytes(3), limit("api_calls", PER_MONTH, 50_000)],
          },
        },
        {
          plan: "enterprise",
          name: "Enterprise",
          terms: {
            type: LicenseType.ENTERPRISE,
            ...yearly(120_000),
            features: ["*"],
            attributes: {
              model_size: "large",
              support: "dedicated",
              sla: "99.9 %",
              trainings: "unlimited",
              integrations: "full",
            },
            limits: [limit("analysts", GAUGE), softTerabytes(5), limit("api_calls", PER_MONTH)],
          },
        },
      ],
      addOns: [
        {
          addOn: "extra-tb",
          name: "1 TB more",
          terms: {
            limits: [{ metric: "data_volume_tb", window: GAUGE, perUnit: 1n }],
            offers: [offer("starter", 5_000), offer("professional", 4_000), offer("enterprise", "agreed")],
          },
        },
      ],
    },
  ],
  customers: [
    {
      customerId: "delta-foods",
      name: "Delta Foods",
      email: "it@delta-foods.example",
      industry: "food",
      employeeCount: 3_200,
      licenses: [
        {
          licenseId: demoId(31),
          product: "platform",
          plan: "professional",
          valid: startedDaysAgo(180),
          addOns: [{ addOn: "extra-tb", quantity: 1 }],
        },
      ],
      usage: [
        { metric: "api_calls", licenseId: demoId(31), days: daysBack(USAGE_DAYS), typical: 1_500 },
        // 85 days of 0.04 TB are 3.4 TB.
        { metric: "data_volume_tb", licenseId: demoId(31), days: daysBack(85), exactly: "0.04" },
      ],
    },
    {
      customerId: "harbor-legal",
      name: "Harbor Legal",
      email: "admin@harbor-legal.example",
      industry: "legal",
      employeeCount: 90,
      licenses: [{ licenseId: demoId(32), product: "platform", plan: "starter", valid: startedDaysAgo(300) }],
      usage: [{ metric: "api_calls", licenseId: demoId(32), days: daysBack(USAGE_DAYS), typical: 330 }],
    },
    {
      customerId: "orbit-bank",
      name: "Orbit Bank",
      email: "platform@orbit-bank.example",
      industry: "banking",
      employeeCount: 12_000,
      licenses: [{ licenseId: demoId(33), product: "platform", plan: "enterprise", valid: startedDaysAgo(30) }],
      usage: [{ metric: "api_calls", licenseId: demoId(33), days: daysBack(30), typical: 9_000 }],
    },
  ],
};

const nectar: DemoTenant = {
  tenantId: "nectar",
  name: "Nectar",
  products: [
    {
      product: "workflows",
      name: "Nectar Workflows",
      graceDays: 7,
      offlineDays: 30,
      keys: { keyFormat: KeyFormat.TOKEN, keyPrefix: "NLS" },
      // As long as an installation may stay offline, its grace included.
      seatPolicy: { instanceTypes: [InstanceType.DEPLOYMENT], leaseSeconds: 37 * 86_400 },
      features: {
        workflows: "Workflows",
        scheduling: "Scheduling",
        audit_log: "Audit log",
        single_sign_on: "Single sign-on",
      },
      plans: [
        {
          plan: "team",
          name: "Team",
          terms: {
            type: LicenseType.STANDARD,
            ...yearly(588),
            features: ["workflows", "scheduling"],
            limits: [limit("workflow_executions", PER_MONTH, 10_000)],
            seats: 1,
          },
        },
        {
          plan: "business",
          name: "Business",
          terms: {
            type: LicenseType.STANDARD,
            ...yearly(2_388),
            features: ["*"],
            limits: [limit("workflow_executions", PER_MONTH, 100_000)],
            seats: 3,
          },
        },
      ],
    },
  ],
  customers: [
    {
      customerId: "self-host-gmbh",
      name: "Self-Host GmbH",
      email: "ops@self-host.example",
      industry: "manufacturing",
      employeeCount: 140,
      licenses: [
        {
          licenseId: demoId(42),
          product: "workflows",
          plan: "business",
          valid: startedDaysAgo(240),
          key: "new",
          seats: [
            { type: InstanceType.DEPLOYMENT, id: "self-host-prod", displayName: "Production", version: "1.62.3" },
            { type: InstanceType.DEPLOYMENT, id: "self-host-lab", displayName: "Lab", version: "1.58.0" },
          ],
        },
      ],
      usage: [
        {
          metric: "workflow_executions",
          feature: "workflows",
          licenseId: demoId(42),
          days: daysBack(USAGE_DAYS),
          typical: 1_900,
        },
      ],
    },
  ],
};

/** Above it the license goes on, and the violation is told; more can be had by the add-on `extra-tb`. */
function softTerabytes(maximum: number) {
  return { ...limit("data_volume_tb", GAUGE, maximum), enforcement: Enforcement.SOFT };
}

/** All tenants of the demo, in the order of loading; the last one's last license is {@link LAST_LICENSE}. */
export const demoTenants: readonly DemoTenant[] = [tradsys, rankmath, wprocket, nectar, localmind];
