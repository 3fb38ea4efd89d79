-- Events that repeat the key of a counted event and say something else. The counted one stands; these are kept for
-- people to look at, each contradiction once.
CREATE TABLE usage_quarantine (
  tenant_id      text NOT NULL,
  source         text NOT NULL,
  event_id       text NOT NULL,
  payload_hash   bytea NOT NULL CHECK (octet_length(payload_hash) = 32),
  customer_id    text NOT NULL,
  license_id     text NOT NULL,
  metric         text NOT NULL,
  feature        text NOT NULL,
  action         text NOT NULL,
  quantity       numeric NOT NULL,
  dimensions     jsonb NOT NULL,
  occurred_at    timestamptz NOT NULL,
  accepted_at    timestamptz NOT NULL,
  actor          text NOT NULL,
  -- In milliseconds, which is what page tokens hold.
  quarantined_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  PRIMARY KEY (tenant_id, source, event_id, payload_hash),
  FOREIGN KEY (tenant_id, source, event_id) REFERENCES usage_event
);
CREATE INDEX usage_quarantine_newest ON usage_quarantine
  (tenant_id, quarantined_at DESC, source DESC, event_id DESC, payload_hash DESC);

ALTER TABLE usage_quarantine ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_quarantine FORCE ROW LEVEL SECURITY;
CREATE POLICY app_own_tenant ON usage_quarantine TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
GRANT SELECT ON usage_quarantine TO licet_app;
CREATE POLICY system_counts ON usage_quarantine TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON usage_quarantine TO licet_system;
