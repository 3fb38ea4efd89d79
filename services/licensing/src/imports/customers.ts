import { timestampDate } from "@bufbuild/protobuf/wkt";
import { invalidArgument } from "@licet/platform/errors";
import { addCustomers, changeCustomer, customerExists } from "../customers.ts";
import { type Customer, lockCustomers } from "../store/customers.ts";
import { attempt, type NumberedRow, overtaken, type RowResult, type Work } from "./rows.ts";

/** Fields of a row that an update takes over, by the customer's property. */
const fields = {
  name: "name",
  email: "email",
  domain: "domain",
  industry: "industry",
  employee_count: "employeeCount",
} as const;

/** Applies rows of customers, each id once, as CreateCustomer does one. */
export async function applyCustomers(work: Work, rows: readonly NumberedRow<"customers">[]): Promise<RowResult[]> {
  const { ctx, tx, call, settings, now } = work;
  const ids = rows.map(({ message }) => message.customerId);
  const known = await lockCustomers(tx, call.tenant, ids);
  const fresh: Customer[] = [];
  const results: RowResult[] = [];
  for (const row of rows) {
    const customer = known.get(row.message.customerId);
    const result = await attempt(row.line, async () => {
      if (!customer) {
        fresh.push(newCustomer(row, now));
        return "created";
      }
      if (settings.onExisting === "fail") throw customerExists(customer.customerId);
      return settings.onExisting === "skip" ? "skipped" : update(work, customer, row);
    });
    results.push(result);
  }
  // By id, as whoever locks several customers does.
  fresh.sort((a, b) => (a.customerId < b.customerId ? -1 : 1));
  if (fresh.length > 0 && !(await addCustomers(ctx, tx, call, fresh))) throw overtaken();
  return results;
}

function newCustomer({ message }: NumberedRow<"customers">, now: Date): Customer {
  const { customerId, name, email, domain, industry, employeeCount, createdAt } = message;
  if (name === "") throw invalidArgument("name", "is required: the customer is new");
  const created = createdAt ? timestampDate(createdAt) : now;
  if (created > now) throw invalidArgument("created_at", `must not lie in the future; it is now ${now.toISOString()}`);
  return { customerId, name, email, domain, industry, employeeCount, createdAt: created };
}

async function update(
  { ctx, tx, call }: Work,
  customer: Customer,
  row: NumberedRow<"customers">,
): Promise<"updated" | "unchanged"> {
  const given = row.given();
  const named = Object.entries(fields).filter(([field]) => given.has(field));
  const changes = named.filter(([, property]) => row.message[property] !== customer[property]);
  if (changes.length === 0) return "unchanged";
  const changed = { ...customer, ...Object.fromEntries(changes.map(([, name]) => [name, row.message[name]])) };
  if (changed.name === "") throw invalidArgument("name", "must not be empty");
  await changeCustomer(ctx, tx, call, changed);
  return "updated";
}
