-- Accepted events that the event log could not take: kept here, as the records that they are in the log, until it takes
-- them again. licet_app adds the events of the tenant that its transaction set, and reads nothing; licet_system hands
-- all of them on, the oldest first, and deletes what the log has acknowledged.
CREATE TABLE usage_spool (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id  text NOT NULL,
  key        text NOT NULL,
  headers    jsonb NOT NULL,
  value      bytea NOT NULL,
  spooled_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE usage_spool ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_spool FORCE ROW LEVEL SECURITY;
CREATE POLICY app_own_tenant ON usage_spool TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
GRANT INSERT ON usage_spool TO licet_app;
CREATE POLICY system_drains ON usage_spool TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT, DELETE ON usage_spool TO licet_system;
