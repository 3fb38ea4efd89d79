import { keepPlan } from "@licet/platform/database/session";
import type { ServiceError } from "@licet/platform/errors";
import type { Transaction } from "kysely";
import { sql } from "kysely";
import { failure } from "../errors.ts";
import type { DB } from "./schema.ts";

/** The organisation that buys. Texts are empty and the count is 0 where unknown. */
export interface Customer {
  customerId: string;
  name: string;
  email: string;
  domain: string;
  industry: string;
  employeeCount: number;
  createdAt: Date;
}

const columns = ["customer_id", "name", "email", "domain", "industry", "employee_count", "created_at"] as const;

function customerFromRow(row: {
  customer_id: string;
  name: string;
  email: string;
  domain: string;
  industry: string;
  employee_count: number;
  created_at: Date;
}): Customer {
  return {
    customerId: row.customer_id,
    name: row.name,
    email: row.email,
    domain: row.domain,
    industry: row.industry,
    employeeCount: row.employee_count,
    createdAt: row.created_at,
  };
}

/** Stores customers in entitlement version 1; those whose id exists are left out. Returns how many were stored. */
export async function insertCustomers(
  tx: Transaction<DB>,
  tenant: string,
  customers: readonly Customer[],
): Promise<number> {
  if (customers.length === 0) return 0;
  const rows = customers.map((customer) => ({
    tenant_id: tenant,
    customer_id: customer.customerId,
    name: customer.name,
    email: customer.email,
    domain: customer.domain,
    industry: customer.industry,
    employee_count: customer.employeeCount,
    created_at: customer.createdAt,
  }));
  const result = await tx
    .insertInto("customer")
    .values(rows)
    .onConflict((conflict) => conflict.columns(["tenant_id", "customer_id"]).doNothing())
    .executeTakeFirst();
  return Number(result.numInsertedOrUpdatedRows ?? 0n);
}

/** Stores a customer as it now is, but for when it was created. The caller holds its row's lock. */
export async function updateCustomer(tx: Transaction<DB>, tenant: string, customer: Customer): Promise<void> {
  await tx
    .updateTable("customer")
    .set({
      name: customer.name,
      email: customer.email,
      domain: customer.domain,
      industry: customer.industry,
      employee_count: customer.employeeCount,
    })
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customer.customerId)
    .execute();
}

/** Locks the rows of those of the customers that the tenant has, in the order of their ids, and returns them. */
export async function lockCustomers(
  tx: Transaction<DB>,
  tenant: string,
  customerIds: readonly string[],
): Promise<Map<string, Customer>> {
  if (customerIds.length === 0) return new Map();
  const rows = await tx
    .selectFrom("customer")
    .select(columns)
    .where("tenant_id", "=", tenant)
    .where("customer_id", "in", customerIds)
    .orderBy("customer_id")
    .forNoKeyUpdate()
    .execute();
  return new Map(rows.map((row) => [row.customer_id, customerFromRow(row)]));
}

/** Sets the entitlement versions of customers whose rows are locked, each to a higher one than it has. */
export async function setEntitlementVersions(
  tx: Transaction<DB>,
  tenant: string,
  versions: ReadonlyMap<string, bigint>,
): Promise<void> {
  if (versions.size === 0) return;
  await sql`
    UPDATE customer SET entitlement_version = raised.version
      FROM unnest(${[...versions.keys()]}::text[], ${[...versions.values()]}::bigint[]) AS raised (customer_id, version)
     WHERE customer.tenant_id = ${tenant} AND customer.customer_id = raised.customer_id`.execute(tx);
}

/**
 * A customer.
 *
 * @throws ServiceError NOT_FOUND `CUSTOMER_NOT_FOUND`
 */
export async function getCustomer(tx: Transaction<DB>, tenant: string, customerId: string): Promise<Customer> {
  const row = await tx
    .selectFrom("customer")
    .select(columns)
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customerId)
    .executeTakeFirst();
  if (!row) throw customerNotFound(customerId);
  return customerFromRow(row);
}

/** The error for a customer that the tenant does not have. */
export function customerNotFound(customerId: string): ServiceError {
  return failure("CUSTOMER_NOT_FOUND", `There is no customer ${customerId}.`);
}

/** Up to `limit` customers by id, behind `after`; with an e-mail (compared without case), or all when it is empty. */
export async function listCustomers(
  tx: Transaction<DB>,
  tenant: string,
  email: string,
  after: string,
  limit: number,
): Promise<Customer[]> {
  const rows = await tx
    .selectFrom("customer")
    .select(columns)
    .where("tenant_id", "=", tenant)
    .$if(email !== "", (query) =>
      query.where("email_key", "=", sql<string>`lower(${email})`).where("email_key", "<>", ""),
    )
    .where("customer_id", ">", after)
    .orderBy("customer_id")
    .limit(limit)
    .execute();
  return rows.map(customerFromRow);
}

/**
 * Locks a customer's row until the end of the transaction: what is read of its licenses behind it stays so. Of two
 * customers the one of the lower id first.
 *
 * @throws ServiceError NOT_FOUND `CUSTOMER_NOT_FOUND`
 */
export async function lockCustomer(tx: Transaction<DB>, tenant: string, customerId: string): Promise<void> {
  const row = await tx
    .selectFrom("customer")
    .select("customer_id")
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customerId)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!row) throw customerNotFound(customerId);
}

/**
 * Raises a customer's entitlement version under its row's lock. Every change of the customer or of one of its
 * licenses does this first, or locks the row first and does this before each event: so one customer's changes have one
 * order. Returns the new version.
 *
 * @throws ServiceError NOT_FOUND `CUSTOMER_NOT_FOUND`
 */
export async function raiseEntitlementVersion(
  tx: Transaction<DB>,
  tenant: string,
  customerId: string,
): Promise<bigint> {
  const row = await tx
    .updateTable("customer")
    .set((eb) => ({ entitlement_version: eb("entitlement_version", "+", 1n) }))
    .where("tenant_id", "=", tenant)
    .where("customer_id", "=", customerId)
    .returning("entitlement_version")
    .modifyEnd(keepPlan)
    .executeTakeFirst();
  if (!row) throw customerNotFound(customerId);
  return row.entitlement_version;
}
