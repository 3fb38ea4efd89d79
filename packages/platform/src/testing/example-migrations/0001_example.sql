-- The tables that platform's own tests work on.
CREATE TABLE note (
  tenant_id text NOT NULL,
  id        bigint GENERATED ALWAYS AS IDENTITY,
  body      text NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
ALTER TABLE note ENABLE ROW LEVEL SECURITY;
ALTER TABLE note FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON note TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
GRANT SELECT, INSERT, UPDATE, DELETE ON note TO licet_app;

CREATE TABLE idempotency (
  tenant_id    text NOT NULL,
  method       text NOT NULL,
  key          text NOT NULL,
  request_hash bytea NOT NULL,
  reply        bytea NOT NULL DEFAULT '',
  encrypted    boolean NOT NULL DEFAULT false,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, method, key)
);
CREATE INDEX idempotency_created_at ON idempotency (created_at);
ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
CREATE POLICY purge ON idempotency TO licet_system USING (true);
GRANT SELECT, INSERT, UPDATE ON idempotency TO licet_app;
GRANT SELECT, DELETE ON idempotency TO licet_system;
