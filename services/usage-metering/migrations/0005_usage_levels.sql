-- How much each customer has used in the windows that limits have: what is compared with a quota. Kept beside the hourly
-- sums, because no question could add up all hours of a life each second.
CREATE TABLE usage_level (
  tenant_id         text NOT NULL,
  customer_id       text NOT NULL,
  metric            text NOT NULL,
  -- Empty where events name none: that counts against every license of the customer.
  license_id        text NOT NULL,
  -- The last day, UTC, that has usage, and the first day of its month. A sender's clock may be ahead: then the day has not
  -- begun, and the one before is the present one. Therefore both are kept, and no other is ever asked for.
  day               date NOT NULL,
  day_used          numeric NOT NULL,
  day_before_used   numeric NOT NULL,
  month             date NOT NULL,
  month_used        numeric NOT NULL,
  month_before_used numeric NOT NULL,
  lifetime_used     numeric NOT NULL,
  -- How many events are in it.
  events            bigint NOT NULL,
  -- Whether it has changed since it was published.
  pending           boolean NOT NULL DEFAULT true,
  PRIMARY KEY (tenant_id, customer_id, metric, license_id)
) WITH (fillfactor = 80);
-- While a level waits to be published, further changes of it touch no index.
CREATE INDEX usage_level_pending ON usage_level (tenant_id, customer_id) WHERE pending;

-- What was added to the sums and is in no level yet. Whoever counts only notes it here, which costs little; one worker
-- adds it to the levels, what came of one customer meanwhile at once.
CREATE TABLE usage_change (
  tenant_id   text NOT NULL,
  customer_id text NOT NULL,
  metric      text NOT NULL,
  license_id  text NOT NULL,
  day         date NOT NULL,
  quantity    numeric NOT NULL,
  events      bigint NOT NULL
);

ALTER TABLE usage_level ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_level FORCE ROW LEVEL SECURITY;
CREATE POLICY app_own_tenant ON usage_level TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
CREATE POLICY system_tells ON usage_level TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT ON usage_level TO licet_app;
GRANT SELECT, INSERT, UPDATE ON usage_level TO licet_system;

ALTER TABLE usage_change ENABLE ROW LEVEL SECURITY;
CREATE POLICY system_counts ON usage_change TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON usage_change TO licet_system;

-- In the database and not in the counter: counters of the release before, which run on during a deployment, note changes
-- too. Whatever changes the sums changes the levels.
CREATE FUNCTION note_new_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO usage_change (tenant_id, customer_id, metric, license_id, day, quantity, events)
  SELECT tenant_id, customer_id, metric, license_id, (hour AT TIME ZONE 'UTC')::date, sum(quantity), sum(events)
    FROM added GROUP BY 1, 2, 3, 4, 5;
  RETURN NULL;
END $$;
-- What is there now, less what was there. A join of the two would compare each row with each: nobody tells the planner how
-- many there are.
CREATE FUNCTION note_raised_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO usage_change (tenant_id, customer_id, metric, license_id, day, quantity, events)
  SELECT tenant_id, customer_id, metric, license_id, (hour AT TIME ZONE 'UTC')::date, sum(quantity), sum(events)
    FROM (SELECT tenant_id, customer_id, metric, license_id, hour, quantity, events FROM after
          UNION ALL
          SELECT tenant_id, customer_id, metric, license_id, hour, -quantity, -events FROM before) AS changed
   GROUP BY 1, 2, 3, 4, 5;
  RETURN NULL;
END $$;

-- Takes a lock of the sums: who counts waits until what was counted so far is noted. The owner sees the rows only while
-- row-level security is not forced on it.
ALTER TABLE usage_hourly NO FORCE ROW LEVEL SECURITY;
CREATE TRIGGER note_new_usage AFTER INSERT ON usage_hourly
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_new_usage();
CREATE TRIGGER note_raised_usage AFTER UPDATE ON usage_hourly
  REFERENCING NEW TABLE AS after OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION note_raised_usage();
INSERT INTO usage_change (tenant_id, customer_id, metric, license_id, day, quantity, events)
SELECT tenant_id, customer_id, metric, license_id, (hour AT TIME ZONE 'UTC')::date, sum(quantity), sum(events)
  FROM usage_hourly GROUP BY 1, 2, 3, 4, 5;
ALTER TABLE usage_change FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_hourly FORCE ROW LEVEL SECURITY;
