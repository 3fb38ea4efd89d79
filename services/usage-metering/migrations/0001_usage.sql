-- Usage metering's tables. Owned by licet_owner, who runs this. licet_app serves calls and reads the sums of the tenant
-- that its transaction set; licet_system counts the events of all tenants.

-- Every counted event: what makes a repetition known, however late, and the source of any recount.
CREATE TABLE usage_event (
  tenant_id    text NOT NULL,
  source       text NOT NULL,
  event_id     text NOT NULL,
  customer_id  text NOT NULL,
  -- Empty where the event names none, as in usage_hourly.
  license_id   text NOT NULL,
  metric       text NOT NULL,
  feature      text NOT NULL,
  action       text NOT NULL,
  quantity     numeric NOT NULL CHECK (quantity >= 0),
  dimensions   jsonb NOT NULL,
  occurred_at  timestamptz NOT NULL,
  accepted_at  timestamptz NOT NULL,
  actor        text NOT NULL,
  -- SHA-256 of what the sender said: tells a repetition from a conflict.
  payload_hash bytea NOT NULL CHECK (octet_length(payload_hash) = 32),
  PRIMARY KEY (tenant_id, source, event_id)
);

-- The sums that questions are answered from.
CREATE TABLE usage_hourly (
  tenant_id   text NOT NULL,
  customer_id text NOT NULL,
  metric      text NOT NULL,
  -- The start of the hour, UTC.
  hour        timestamptz NOT NULL,
  feature     text NOT NULL,
  license_id  text NOT NULL,
  quantity    numeric NOT NULL,
  events      bigint NOT NULL,
  PRIMARY KEY (tenant_id, customer_id, metric, hour, feature, license_id)
);

-- How far the log is counted; moved in the transaction that counts.
CREATE TABLE consumer_offset (
  consumer    text NOT NULL,
  topic       text NOT NULL,
  partition   integer NOT NULL,
  next_offset bigint NOT NULL,
  PRIMARY KEY (consumer, topic, partition)
);

ALTER TABLE usage_event ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_event FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_hourly ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_hourly FORCE ROW LEVEL SECURITY;
ALTER TABLE consumer_offset ENABLE ROW LEVEL SECURITY;
ALTER TABLE consumer_offset FORCE ROW LEVEL SECURITY;

-- After a transaction a pooled connection holds '' as the setting; NULLIF makes that no tenant.
CREATE POLICY app_own_tenant ON usage_event TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
CREATE POLICY app_own_tenant ON usage_hourly TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
GRANT SELECT ON usage_event, usage_hourly TO licet_app;

CREATE POLICY system_counts ON usage_event TO licet_system USING (true) WITH CHECK (true);
CREATE POLICY system_counts ON usage_hourly TO licet_system USING (true) WITH CHECK (true);
CREATE POLICY system_counts ON consumer_offset TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON usage_event TO licet_system;
GRANT SELECT, INSERT, UPDATE ON usage_hourly, consumer_offset TO licet_system;
