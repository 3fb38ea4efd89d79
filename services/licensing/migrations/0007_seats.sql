-- The seats of licenses: how a product's are held, how many are taken, and by whom.

-- Products of before have node-locked seats without a lease.
ALTER TABLE product
  ADD COLUMN seat_mode               text NOT NULL DEFAULT 'node_locked' CHECK (seat_mode IN ('node_locked', 'floating')),
  -- NULL: a silent instance keeps its seat.
  ADD COLUMN lease_seconds           integer CHECK (lease_seconds BETWEEN 10 AND 31622400),
  -- Empty: all types.
  ADD COLUMN instance_types          text[] NOT NULL DEFAULT '{}',
  ADD COLUMN ignore_www              boolean NOT NULL DEFAULT false,
  ADD COLUMN ignore_path             boolean NOT NULL DEFAULT false,
  ADD COLUMN keep_hostname_case      boolean NOT NULL DEFAULT false,
  ADD COLUMN min_matching_components integer NOT NULL DEFAULT 0 CHECK (min_matching_components BETWEEN 0 AND 16),
  ADD COLUMN seats_below_use         text NOT NULL DEFAULT 'refuse' CHECK (seats_below_use IN ('refuse', 'block')),
  ADD CHECK (seat_mode <> 'floating' OR lease_seconds IS NOT NULL);

-- How many seats of a license there are and are taken. A table of its own, so that taking one changes no license and waits
-- for no customer. The row's lock is what all who take, free or count seats of a license hold.
CREATE TABLE license_seats (
  tenant_id  text NOT NULL,
  license_id uuid NOT NULL,
  -- The license's seats, brought here by the trigger below: one statement has to compare them with what is taken. NULL:
  -- unlimited.
  seats_max  integer,
  -- The rows of activation. It may lie above the maximum after that was lowered.
  seats_used integer NOT NULL DEFAULT 0 CHECK (seats_used >= 0),
  -- Of the last event of the license's seats.
  version    bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, license_id),
  FOREIGN KEY (tenant_id, license_id) REFERENCES license
);

-- Who holds the seats. What became of former ones is in the history.
CREATE TABLE activation (
  tenant_id     text NOT NULL,
  license_id    uuid NOT NULL,
  activation_id uuid NOT NULL,
  -- SHA-256 of what the instance is known by, as the product's rules write it.
  fingerprint   bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
  instance_type text NOT NULL CHECK (instance_type IN ('url', 'hostname', 'machine_id', 'deployment')),
  instance_id   text NOT NULL,
  display_name  text NOT NULL,
  version       text NOT NULL,
  deployment_id text NOT NULL,
  activated_at  timestamptz NOT NULL,
  last_seen_at  timestamptz NOT NULL,
  -- From this moment on the seat is free, whether or not somebody has noticed. NULL: it has no lease.
  lease_until   timestamptz,
  PRIMARY KEY (tenant_id, license_id, activation_id),
  UNIQUE (tenant_id, license_id, fingerprint),
  FOREIGN KEY (tenant_id, license_id) REFERENCES license_seats
);
CREATE INDEX activation_lease ON activation (lease_until) WHERE lease_until IS NOT NULL;

-- The components of machines that are known by several.
CREATE TABLE activation_component (
  tenant_id     text NOT NULL,
  license_id    uuid NOT NULL,
  activation_id uuid NOT NULL,
  name          text NOT NULL,
  -- SHA-256 of name and value.
  value_hash    bytea NOT NULL CHECK (octet_length(value_hash) = 32),
  PRIMARY KEY (tenant_id, license_id, activation_id, name),
  FOREIGN KEY (tenant_id, license_id, activation_id) REFERENCES activation ON DELETE CASCADE
);
CREATE INDEX activation_component_value ON activation_component (tenant_id, license_id, value_hash);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['license_seats', 'activation', 'activation_component'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY app_own_tenant ON %I TO licet_app '
      'USING (tenant_id = NULLIF(current_setting(''licet.tenant'', true), '''')) '
      'WITH CHECK (tenant_id = NULLIF(current_setting(''licet.tenant'', true), ''''))', t);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE ON license_seats TO licet_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON activation TO licet_app;
GRANT SELECT, INSERT, DELETE ON activation_component TO licet_app;

-- Whose leases are over is looked for in all tenants.
CREATE POLICY system_reads ON activation FOR SELECT TO licet_system USING (true);
GRANT SELECT (tenant_id, license_id, lease_until) ON activation TO licet_system;

-- In the database and not in the service: releases before this one, which run on during a deployment, change the seats of
-- licenses too. An upsert, so that it meets whoever makes the row at the same time from the license as it was. A license has
-- the seats it was sold and those that its add-ons give (the column add_ons comes with 0008, before any license is changed).
CREATE FUNCTION follow_license_seats() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.seats, NEW.add_ons) IS DISTINCT FROM (OLD.seats, OLD.add_ons) THEN
    INSERT INTO license_seats (tenant_id, license_id, seats_max)
    SELECT NEW.tenant_id, NEW.license_id,
           NEW.seats + coalesce(sum((held->>'quantity')::integer * (held->>'seats')::integer), 0)
      FROM jsonb_array_elements(NEW.add_ons) AS held
    ON CONFLICT (tenant_id, license_id) DO UPDATE SET seats_max = excluded.seats_max;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER follow_license_seats AFTER UPDATE ON license FOR EACH ROW EXECUTE FUNCTION follow_license_seats();
