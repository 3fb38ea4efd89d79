-- The whole life of a license, and its history for audit.
ALTER TABLE license
  -- Raised by every change; its text is the etag. Releases before this one don't raise it.
  ADD COLUMN revision            bigint NOT NULL DEFAULT 1,
  ADD COLUMN auto_renew          boolean NOT NULL DEFAULT false,
  ADD COLUMN cancels_at          timestamptz,
  ADD COLUMN cancel_reason       text NOT NULL DEFAULT '',
  ADD COLUMN unpaid_grace_until  timestamptz,
  ADD COLUMN suspended_by_billing boolean NOT NULL DEFAULT false,
  -- What the history has told of what the clock does; NULL: nobody knows, as in rows of releases before this one.
  ADD COLUMN told_status         text,
  ADD COLUMN told_notice_days    integer,
  ADD COLUMN told_renewal        boolean NOT NULL DEFAULT false,
  -- When the scheduler has something to do; NULL: never again. The default makes it look at every row of a release
  -- before this one, once; a constant default rewrites no row.
  ADD COLUMN due_at              timestamptz DEFAULT '1970-01-01T00:00:00Z';
CREATE INDEX license_due ON license (due_at) WHERE due_at IS NOT NULL;

-- Who did what to a customer or license, from where, why, and what it was before and after. Append-only: nobody but the
-- owner may UPDATE or DELETE. The event of the same version is what others hear of it; caller and address stay here.
CREATE TABLE license_history (
  tenant_id    text NOT NULL,
  -- Assigned under the customer's row lock, so in the order of versions; of a license that moves, under both locks.
  entry_id     bigint GENERATED ALWAYS AS IDENTITY,
  event_id     uuid NOT NULL REFERENCES event (event_id),
  customer_id  text NOT NULL,
  version      bigint NOT NULL,
  license_id   uuid,
  -- The license key it happened to, or that the license was put under.
  key_id       uuid,
  -- The number of LicenseChangeCause.
  cause        integer NOT NULL,
  actor        text NOT NULL,
  reason       text NOT NULL,
  ip_address   text NOT NULL,
  user_agent   text NOT NULL,
  -- licet.licensing.v1.License
  before       bytea,
  after        bytea,
  notice_days  integer NOT NULL,
  effective_at timestamptz NOT NULL,
  occurred_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, entry_id),
  UNIQUE (tenant_id, customer_id, version)
);
CREATE INDEX license_history_license ON license_history (tenant_id, license_id, entry_id);
CREATE INDEX license_history_customer ON license_history (tenant_id, customer_id, entry_id);

ALTER TABLE license_history ENABLE ROW LEVEL SECURITY;
ALTER TABLE license_history FORCE ROW LEVEL SECURITY;
CREATE POLICY app_own_tenant ON license_history TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
GRANT SELECT, INSERT ON license_history TO licet_app;
