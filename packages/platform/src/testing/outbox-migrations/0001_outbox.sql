-- The outbox as a service creates it, and streams to number its events. For platform's own tests.
CREATE TABLE event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id uuid NOT NULL UNIQUE,
  tenant_id text NOT NULL,
  stream text NOT NULL,
  version bigint NOT NULL,
  type text NOT NULL,
  payload bytea NOT NULL,
  actor text NOT NULL,
  traceparent text,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, stream, version)
);
ALTER TABLE event ENABLE ROW LEVEL SECURITY;
ALTER TABLE event FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON event TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
CREATE POLICY relay ON event FOR SELECT TO licet_system USING (true);
CREATE TABLE outbox_pending (event_id bigint PRIMARY KEY REFERENCES event (id));
CREATE TABLE stream (name text PRIMARY KEY, version bigint NOT NULL);
GRANT SELECT, INSERT ON event TO licet_app;
GRANT INSERT ON outbox_pending TO licet_app;
GRANT SELECT, INSERT, UPDATE ON stream TO licet_app;
GRANT SELECT ON event TO licet_system;
GRANT SELECT, DELETE ON outbox_pending TO licet_system;
