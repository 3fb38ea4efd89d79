-- Imports and bulk operations: how far they are, and what went wrong with single rows and licenses.

CREATE TABLE import (
  tenant_id    text NOT NULL REFERENCES tenant,
  import_id    text NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('customers', 'licenses')),
  format       text NOT NULL CHECK (format IN ('csv', 'jsonl')),
  dry_run      boolean NOT NULL,
  on_existing  text NOT NULL CHECK (on_existing IN ('fail', 'skip', 'update')),
  status       text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
  -- Bytes of the file that were taken. The last of them, in `rest`, are the beginning of a row whose end is to come.
  next_offset  bigint NOT NULL DEFAULT 0,
  rest         bytea NOT NULL DEFAULT '',
  -- The line on which the row in `rest` begins, or the next one.
  line         bigint NOT NULL DEFAULT 1,
  -- Where inside a row that is too long the scanner stands; NULL: in none.
  skipping     text CHECK (skipping IN ('field', 'plain', 'quoted', 'closing')),
  -- Of CSV: the names in the header; NULL: it is still to come.
  columns      text[],
  created      bigint NOT NULL DEFAULT 0,
  updated      bigint NOT NULL DEFAULT 0,
  unchanged    bigint NOT NULL DEFAULT 0,
  skipped      bigint NOT NULL DEFAULT 0,
  failed       bigint NOT NULL DEFAULT 0,
  errors_kept  integer NOT NULL DEFAULT 0,
  failure      text NOT NULL DEFAULT '',
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, import_id)
);
CREATE INDEX import_running ON import (tenant_id, updated_at) WHERE status = 'running';
CREATE INDEX import_age ON import (updated_at);

CREATE TABLE import_error (
  tenant_id text NOT NULL,
  import_id text NOT NULL,
  -- A row can have several, in the order of `error_no`.
  error_no  bigint GENERATED ALWAYS AS IDENTITY,
  line      bigint NOT NULL,
  field     text NOT NULL,
  message   text NOT NULL,
  reason    text NOT NULL,
  PRIMARY KEY (tenant_id, import_id, error_no),
  FOREIGN KEY (tenant_id, import_id) REFERENCES import ON DELETE CASCADE
);

CREATE TABLE bulk_operation (
  tenant_id    text NOT NULL REFERENCES tenant,
  operation_id uuid NOT NULL,
  action       text NOT NULL CHECK (action IN ('suspend', 'resume', 'renew', 'migrate')),
  -- What was asked for: {selection, ...} of the domain, as JSON.
  selection    jsonb NOT NULL,
  change       jsonb NOT NULL,
  dry_run      boolean NOT NULL,
  reason       text NOT NULL,
  status       text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'completed', 'cancelled')),
  -- Licenses up to this id have had their turn; NULL: none has. It moves in the transaction that changes the license.
  last_id      uuid,
  total        bigint NOT NULL,
  changed      bigint NOT NULL DEFAULT 0,
  unchanged    bigint NOT NULL DEFAULT 0,
  failed       bigint NOT NULL DEFAULT 0,
  skipped      bigint NOT NULL DEFAULT 0,
  results_kept integer NOT NULL DEFAULT 0,
  -- Who started it and from where, for the history of each license.
  actor        text NOT NULL,
  ip_address   text NOT NULL,
  user_agent   text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, operation_id)
);
CREATE INDEX bulk_operation_running ON bulk_operation (updated_at) WHERE status = 'running';
CREATE INDEX bulk_operation_age ON bulk_operation (updated_at);

CREATE TABLE bulk_result (
  tenant_id    text NOT NULL,
  operation_id uuid NOT NULL,
  license_id   uuid NOT NULL,
  failed       boolean NOT NULL,
  -- licet.licensing.v1.BulkResult
  result       bytea NOT NULL,
  PRIMARY KEY (tenant_id, operation_id, license_id),
  FOREIGN KEY (tenant_id, operation_id) REFERENCES bulk_operation ON DELETE CASCADE
);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['import', 'import_error', 'bulk_operation', 'bulk_result'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY app_own_tenant ON %I TO licet_app '
      'USING (tenant_id = NULLIF(current_setting(''licet.tenant'', true), '''')) '
      'WITH CHECK (tenant_id = NULLIF(current_setting(''licet.tenant'', true), ''''))', t);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE ON import, bulk_operation TO licet_app;
GRANT SELECT, INSERT ON import_error, bulk_result TO licet_app;

-- The worker finds what runs, and the purge deletes what ended 30 days ago; their errors and results go with them.
CREATE POLICY system_purges ON import TO licet_system USING (true);
CREATE POLICY system_purges ON bulk_operation TO licet_system USING (true);
GRANT SELECT (tenant_id, import_id, status, updated_at), DELETE ON import TO licet_system;
GRANT SELECT (tenant_id, operation_id, status, updated_at), DELETE ON bulk_operation TO licet_system;
