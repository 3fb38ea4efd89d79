-- API keys that hold fewer scopes than their role gives, that are replaced, and when each was used; and the calls that
-- installed products make by each license key.

ALTER TABLE api_key
  -- The scopes that were asked for; NULL: those of the role, whatever they become. Releases before this one go by the role.
  ADD COLUMN scopes      text[] CHECK (cardinality(scopes) > 0),
  ADD COLUMN replaced_by text,
  ADD FOREIGN KEY (tenant_id, replaced_by) REFERENCES api_key (tenant_id, key_id),
  ADD CHECK (replaced_by IS NULL OR expires_at IS NOT NULL);

-- Apart from the key, so that noting its use neither waits for a change of it nor makes a new version of a wide row.
CREATE TABLE api_key_use (
  tenant_id    text NOT NULL,
  key_id       text NOT NULL,
  last_used_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, key_id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_key
);

-- How many calls of a day replicas have taken for a license key, made or not. What is taken never exceeds the limit, so
-- what is made never does. No reference to license_key: rows of past days go, and nobody reads one for what it names.
CREATE TABLE license_key_calls (
  tenant_id text NOT NULL,
  key_id    uuid NOT NULL,
  -- In UTC.
  day       date NOT NULL,
  taken     integer NOT NULL CHECK (taken >= 0),
  PRIMARY KEY (tenant_id, key_id, day)
) WITH (fillfactor = 50); -- Rows change many times a day; the room lets them change in place.
CREATE INDEX license_key_calls_day ON license_key_calls (day);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['api_key_use', 'license_key_calls'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY app_own_tenant ON %I TO licet_app '
      'USING (tenant_id = NULLIF(current_setting(''licet.tenant'', true), '''')) '
      'WITH CHECK (tenant_id = NULLIF(current_setting(''licet.tenant'', true), ''''))', t);
  END LOOP;
END $$;

GRANT SELECT ON api_key_use TO licet_app;
GRANT SELECT, INSERT ON license_key_calls TO licet_app;
GRANT UPDATE (taken) ON license_key_calls TO licet_app;

-- The system role: services report the use of keys of all tenants at once; calls that were taken and not made are given
-- back, and past days purged.
CREATE POLICY system_notes ON api_key_use TO licet_system USING (true) WITH CHECK (true);
CREATE POLICY system_returns ON license_key_calls TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON api_key_use TO licet_system;
GRANT UPDATE (last_used_at) ON api_key_use TO licet_system;
GRANT SELECT, DELETE ON license_key_calls TO licet_system;
GRANT UPDATE (taken) ON license_key_calls TO licet_system;
