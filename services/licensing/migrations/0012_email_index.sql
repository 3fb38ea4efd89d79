-- Customers by e-mail, whatever the case of its letters, by a column: under row-level security an index on lower(email) is of no
-- use, as Postgres takes lower() for a function that might tell of rows that the caller must not see. Writes of customers wait
-- meanwhile.
ALTER TABLE customer ADD COLUMN email_key text NOT NULL GENERATED ALWAYS AS (lower(email)) STORED;
DROP INDEX customer_email;
CREATE INDEX customer_email ON customer (tenant_id, email_key) WHERE email_key <> '';
