-- The catalogue can change: updates of products, features and plans, plans for one customer, attributes, add-ons.
-- Constant defaults rewrite no row.

ALTER TABLE product
  -- Raised by every update of the row; its text is the etag. Releases before this one don't raise it.
  ADD COLUMN revision           bigint NOT NULL DEFAULT 1,
  -- What holds for features that say nothing of their own; 0 is `closed`.
  ADD COLUMN fail_grace_seconds integer NOT NULL DEFAULT 300 CHECK (fail_grace_seconds BETWEEN 0 AND 604800);

ALTER TABLE feature
  ADD COLUMN revision            bigint NOT NULL DEFAULT 1,
  -- Whether fail_grace_seconds is the product's, copied here. Features of before keep what they have.
  ADD COLUMN fail_mode_inherited boolean NOT NULL DEFAULT false;
GRANT UPDATE ON feature TO licet_app;

ALTER TABLE plan
  ADD COLUMN revision    bigint NOT NULL DEFAULT 1,
  -- The only customer who can be given it; NULL: all can.
  ADD COLUMN customer_id text,
  ADD COLUMN retired_at  timestamptz,
  ADD FOREIGN KEY (tenant_id, customer_id) REFERENCES customer;

-- {code: text}
ALTER TABLE plan_version ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}';

CREATE TABLE add_on (
  tenant_id      text NOT NULL,
  product        text NOT NULL,
  add_on         text NOT NULL,
  name           text NOT NULL,
  latest_version integer NOT NULL DEFAULT 1,
  revision       bigint NOT NULL DEFAULT 1,
  retired_at     timestamptz,
  PRIMARY KEY (tenant_id, product, add_on),
  FOREIGN KEY (tenant_id, product) REFERENCES product
);

-- Immutable: nobody but the owner may UPDATE or DELETE.
CREATE TABLE add_on_version (
  tenant_id    text NOT NULL,
  product      text NOT NULL,
  add_on       text NOT NULL,
  version      integer NOT NULL CHECK (version >= 1),
  features     text[] NOT NULL,
  -- [{metric, window, perUnit: string}]
  limits       jsonb NOT NULL,
  seats        integer NOT NULL CHECK (seats >= 0),
  -- [{plan: string | null (all others), price: {currency, amountMinor: string, cycle} | {agreed: cycle} | null (free)}]
  offers       jsonb NOT NULL,
  max_quantity integer NOT NULL CHECK (max_quantity >= 1),
  published_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, product, add_on, version),
  FOREIGN KEY (tenant_id, product, add_on) REFERENCES add_on
);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['add_on', 'add_on_version'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY app_own_tenant ON %I TO licet_app '
      'USING (tenant_id = NULLIF(current_setting(''licet.tenant'', true), '''')) '
      'WITH CHECK (tenant_id = NULLIF(current_setting(''licet.tenant'', true), ''''))', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT ON add_on, add_on_version TO licet_app;
GRANT UPDATE ON add_on TO licet_app;

-- The add-ons that a license holds, each with what it was sold as: a copy, so that a license is read without looking up
-- each of them, as snapshots of all customers are. Versions never change, so neither can a copy come to differ.
-- [{addOn, version, quantity, price: {currency, amountMinor: string, cycle} | null (free),
--   features, limits: [{metric, window, perUnit: string}], seats}]; features, limits and seats are those of one unit.
ALTER TABLE license ADD COLUMN add_ons jsonb NOT NULL DEFAULT '[]';
