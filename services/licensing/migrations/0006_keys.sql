-- License keys, and the keys that sign token keys and signed licenses.

-- How the keys of a product look; NULL: it has none. Products of before have none.
ALTER TABLE product
  ADD COLUMN key_format text CHECK (key_format IN ('opaque', 'token')),
  ADD COLUMN key_prefix text CHECK (key_prefix ~ '^[A-Z]{2,8}$'),
  ADD COLUMN offline_days integer NOT NULL DEFAULT 0 CHECK (offline_days BETWEEN 0 AND 365),
  ADD CHECK ((key_format IS NULL) = (key_prefix IS NULL));

CREATE TABLE license_key (
  tenant_id     text NOT NULL,
  key_id        uuid NOT NULL,
  customer_id   text NOT NULL,
  format        text NOT NULL CHECK (format IN ('opaque', 'token')),
  prefix        text NOT NULL,
  hint          text NOT NULL,
  -- HMAC-SHA-256 of the whole key, for look-up, under a key derived from the master key that hash_key names.
  key_hash      bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
  hash_key      text NOT NULL,
  -- The whole key, AES-256-GCM; its head names the master key.
  sealed        bytea NOT NULL,
  kid           text,
  issued_at     timestamptz NOT NULL,
  expires_at    timestamptz,
  revoked_at    timestamptz,
  revoke_reason text NOT NULL DEFAULT '',
  replaced_by   uuid,
  PRIMARY KEY (tenant_id, key_id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
  FOREIGN KEY (tenant_id, replaced_by) REFERENCES license_key (tenant_id, key_id),
  CHECK ((format = 'token') = (kid IS NOT NULL)),
  CHECK (replaced_by IS NULL OR expires_at IS NOT NULL)
);
CREATE INDEX license_key_customer ON license_key (tenant_id, customer_id, issued_at DESC, key_id DESC);

-- Which licenses a key proves: one for each product.
CREATE TABLE keyed_license (
  tenant_id  text NOT NULL,
  key_id     uuid NOT NULL,
  product    text NOT NULL,
  license_id uuid NOT NULL,
  PRIMARY KEY (tenant_id, key_id, product),
  FOREIGN KEY (tenant_id, key_id) REFERENCES license_key,
  FOREIGN KEY (tenant_id, license_id) REFERENCES license
);
CREATE INDEX keyed_license_license ON keyed_license (tenant_id, license_id);

-- Signing keys belong to the installation: their tenant is `_platform`.
CREATE TABLE signing_key (
  tenant_id   text NOT NULL,
  -- The JWK thumbprint of the public key (RFC 7638).
  kid         text NOT NULL,
  public_key  bytea NOT NULL CHECK (octet_length(public_key) = 32),
  -- The private key as PKCS 8, AES-256-GCM; its head names the master key.
  sealed      bytea NOT NULL,
  version     bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL,
  active_from timestamptz NOT NULL,
  retired_at  timestamptz,
  PRIMARY KEY (tenant_id, kid)
);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['license_key', 'keyed_license', 'signing_key'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY app_own_tenant ON %I TO licet_app '
      'USING (tenant_id = NULLIF(current_setting(''licet.tenant'', true), '''')) '
      'WITH CHECK (tenant_id = NULLIF(current_setting(''licet.tenant'', true), ''''))', t);
  END LOOP;
END $$;

GRANT SELECT, INSERT ON license_key, keyed_license, signing_key TO licet_app;
GRANT UPDATE ON license_key, signing_key TO licet_app;

-- A key that an installed product shows is looked up before its tenant is known.
CREATE POLICY system_reads ON license_key FOR SELECT TO licet_system USING (true);
GRANT SELECT (tenant_id, key_id, key_hash) ON license_key TO licet_system;
