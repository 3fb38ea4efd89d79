-- Licensing's tables. Owned by licet_owner, who runs this; licet_app serves calls and sees the rows of the tenant
-- that its transaction set; licet_system serves relays, key look-up and snapshots, on the tables named for it below.

CREATE TABLE tenant (
  tenant_id  text PRIMARY KEY,
  name       text NOT NULL,
  created_at timestamptz NOT NULL
);

CREATE TABLE api_key (
  tenant_id   text NOT NULL,
  key_id      text NOT NULL UNIQUE,
  name        text NOT NULL,
  role        text NOT NULL CHECK (role IN ('admin', 'brand', 'product', 'service', 'viewer', 'operator')),
  secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
  version     bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL,
  expires_at  timestamptz,
  revoked_at  timestamptz,
  PRIMARY KEY (tenant_id, key_id)
);
CREATE INDEX api_key_newest ON api_key (tenant_id, created_at DESC, key_id DESC);

CREATE TABLE product (
  tenant_id       text NOT NULL REFERENCES tenant,
  product         text NOT NULL,
  name            text NOT NULL,
  grace_days      integer NOT NULL CHECK (grace_days >= 0),
  -- Raised under the row's lock with every change of the product or its features.
  catalog_version bigint NOT NULL DEFAULT 1,
  created_at      timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, product)
);

CREATE TABLE feature (
  tenant_id   text NOT NULL,
  product     text NOT NULL,
  feature     text NOT NULL,
  name        text NOT NULL,
  reduce_only boolean NOT NULL,
  created_at  timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, product, feature),
  FOREIGN KEY (tenant_id, product) REFERENCES product
);

CREATE TABLE plan (
  tenant_id      text NOT NULL,
  product        text NOT NULL,
  plan           text NOT NULL,
  name           text NOT NULL,
  latest_version integer NOT NULL DEFAULT 1,
  PRIMARY KEY (tenant_id, product, plan),
  FOREIGN KEY (tenant_id, product) REFERENCES product
);

-- Immutable: nobody but the owner may UPDATE or DELETE.
CREATE TABLE plan_version (
  tenant_id          text NOT NULL,
  product            text NOT NULL,
  plan               text NOT NULL,
  version            integer NOT NULL CHECK (version >= 1),
  type               text NOT NULL CHECK (type IN ('trial', 'standard', 'enterprise', 'custom')),
  features           text[] NOT NULL,
  -- [{metric, maximum: string | null (unlimited), window, enforcement}]; big integers are strings, as jsonb loses them.
  limits             jsonb NOT NULL,
  price_currency     text,
  price_amount_minor bigint,
  price_cycle        text CHECK (price_cycle IN ('month', 'year')),
  -- [{metric, includedPerMonth: string, currency, decimal}]
  usage_prices       jsonb NOT NULL,
  term_days          integer NOT NULL,
  seats              integer,
  published_at       timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, product, plan, version),
  FOREIGN KEY (tenant_id, product, plan) REFERENCES plan,
  CHECK ((price_currency IS NULL) = (price_amount_minor IS NULL)),
  CHECK (price_amount_minor IS NULL OR price_cycle IS NOT NULL)
);

CREATE TABLE customer (
  tenant_id           text NOT NULL REFERENCES tenant,
  customer_id         text NOT NULL,
  name                text NOT NULL,
  email               text NOT NULL,
  domain              text NOT NULL,
  industry            text NOT NULL,
  employee_count      integer NOT NULL,
  -- Raised first, under this row's lock, by every change of the customer or of one of its licenses: one customer's
  -- changes have one order.
  entitlement_version bigint NOT NULL DEFAULT 1,
  created_at          timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, customer_id)
);
CREATE INDEX customer_email ON customer (tenant_id, lower(email)) WHERE email <> '';

CREATE TABLE license (
  tenant_id     text NOT NULL,
  license_id    uuid NOT NULL,
  customer_id   text NOT NULL,
  product       text NOT NULL,
  plan          text,
  plan_version  integer,
  type          text NOT NULL CHECK (type IN ('trial', 'standard', 'enterprise', 'custom')),
  -- What was last decided. Pending, grace and expired follow from the times and the clock.
  status        text NOT NULL CHECK (status IN ('active', 'past_due', 'suspended', 'cancelled', 'revoked')),
  status_reason text NOT NULL DEFAULT '',
  -- Own terms of a bare license; NULL where the plan version's hold.
  features      text[],
  limits        jsonb,
  seats         integer,
  valid_from    timestamptz NOT NULL,
  valid_until   timestamptz,
  grace_days    integer NOT NULL CHECK (grace_days >= 0),
  billing_cycle text CHECK (billing_cycle IN ('month', 'year')),
  metadata      jsonb NOT NULL,
  created_at    timestamptz NOT NULL,
  updated_at    timestamptz NOT NULL,
  ended_at      timestamptz,
  PRIMARY KEY (tenant_id, license_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
  FOREIGN KEY (tenant_id, product) REFERENCES product,
  FOREIGN KEY (tenant_id, product, plan, plan_version) REFERENCES plan_version,
  CHECK ((plan IS NULL) = (plan_version IS NULL)),
  CHECK (plan IS NOT NULL OR (features IS NOT NULL AND limits IS NOT NULL)),
  CHECK (valid_until IS NULL OR valid_until > valid_from)
);
CREATE INDEX license_customer ON license (tenant_id, customer_id, created_at, license_id);

-- The history: append-only, the audit trail and the source of all replays.
CREATE TABLE event (
  id          bigserial PRIMARY KEY,
  event_id    uuid NOT NULL UNIQUE,
  tenant_id   text NOT NULL,
  -- Whose history: 'customer/<id>', 'product/<code>' or 'credential/<key id>'.
  stream      text NOT NULL,
  version     bigint NOT NULL,
  type        text NOT NULL,
  payload     bytea NOT NULL,
  actor       text NOT NULL,
  traceparent text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, stream, version)
);

-- Which events the relay has still to send; deleted once the bus has acknowledged them.
CREATE TABLE outbox_pending (
  event_id bigint PRIMARY KEY REFERENCES event (id)
);

CREATE TABLE idempotency (
  tenant_id    text NOT NULL,
  method       text NOT NULL,
  key          text NOT NULL,
  request_hash bytea NOT NULL,
  -- Empty only inside the transaction that is making the effect.
  reply        bytea NOT NULL DEFAULT '',
  encrypted    boolean NOT NULL DEFAULT false,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, method, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['tenant', 'api_key', 'product', 'feature', 'plan', 'plan_version', 'customer', 'license',
                           'event', 'outbox_pending', 'idempotency'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    -- After a transaction a pooled connection holds '' as the setting; NULLIF makes that no tenant.
    IF t <> 'outbox_pending' THEN
      EXECUTE format('CREATE POLICY app_own_tenant ON %I TO licet_app '
        'USING (tenant_id = NULLIF(current_setting(''licet.tenant'', true), '''')) '
        'WITH CHECK (tenant_id = NULLIF(current_setting(''licet.tenant'', true), ''''))', t);
    END IF;
  END LOOP;
END $$;

-- A mark names an event and nothing of a tenant; the app role writes marks and can't read them.
CREATE POLICY app_marks ON outbox_pending FOR INSERT TO licet_app WITH CHECK (true);

GRANT SELECT, INSERT ON tenant, product, feature, plan, plan_version, customer, license, api_key, event, idempotency TO licet_app;
GRANT INSERT ON outbox_pending TO licet_app;
GRANT UPDATE ON product, plan, customer, license, api_key, idempotency TO licet_app;
GRANT USAGE ON SEQUENCE event_id_seq TO licet_app;

-- The system role: which tables, for which task.
CREATE POLICY system_reads ON tenant FOR SELECT TO licet_system USING (true);        -- list tenants
CREATE POLICY system_reads ON api_key FOR SELECT TO licet_system USING (true);       -- resolve a credential
CREATE POLICY system_reads ON product FOR SELECT TO licet_system USING (true);       -- snapshots of all tenants
CREATE POLICY system_reads ON feature FOR SELECT TO licet_system USING (true);
CREATE POLICY system_reads ON plan_version FOR SELECT TO licet_system USING (true);
CREATE POLICY system_reads ON customer FOR SELECT TO licet_system USING (true);
CREATE POLICY system_reads ON license FOR SELECT TO licet_system USING (true);
CREATE POLICY system_relays ON event FOR SELECT TO licet_system USING (true);        -- relay
CREATE POLICY system_relays ON outbox_pending TO licet_system USING (true);
CREATE POLICY system_purges ON idempotency TO licet_system USING (true);             -- purge after 30 days
GRANT SELECT ON tenant, api_key, product, feature, plan_version, customer, license, event TO licet_system;
GRANT SELECT, DELETE ON outbox_pending, idempotency TO licet_system;
