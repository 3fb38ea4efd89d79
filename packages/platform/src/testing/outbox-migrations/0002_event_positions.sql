-- As a service creates it. Where a published event stands among those of its tenant, from 1 and without holes: what subscribers read by. An event
-- gets its position when its mark is deleted, in the same transaction and under the lock of the tenant's tail, so that
-- positions become visible in their order. A sequence, or event.id itself, would let a reader pass over what commits late.
CREATE TABLE event_tail (
  tenant_id     text PRIMARY KEY,
  last_position bigint NOT NULL
);
CREATE TABLE event_position (
  tenant_id text NOT NULL,
  position  bigint NOT NULL,
  event_id  bigint NOT NULL UNIQUE REFERENCES event (id),
  PRIMARY KEY (tenant_id, position)
);

ALTER TABLE event_tail ENABLE ROW LEVEL SECURITY;
CREATE POLICY app_own_tenant ON event_tail TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
CREATE POLICY system_relays ON event_tail TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT ON event_tail TO licet_app;
GRANT SELECT, INSERT, UPDATE ON event_tail TO licet_system;

ALTER TABLE event_position ENABLE ROW LEVEL SECURITY;
CREATE POLICY app_own_tenant ON event_position TO licet_app
  USING (tenant_id = NULLIF(current_setting('licet.tenant', true), ''))
  WITH CHECK (tenant_id = NULLIF(current_setting('licet.tenant', true), ''));
CREATE POLICY system_relays ON event_position TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT ON event_position TO licet_app;
GRANT SELECT, INSERT ON event_position TO licet_system;

-- In the database and not in the relay: relays of the release before, which run on during a deployment, give positions
-- too. Whoever deletes a mark gives the position; of two relays that delete the same one, the second finds nothing. An
-- event that is replayed keeps the position it has.
CREATE FUNCTION give_event_positions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  WITH fresh AS (
    SELECT e.tenant_id, e.id
      FROM published JOIN event e ON e.id = published.event_id
     WHERE NOT EXISTS (SELECT FROM event_position p WHERE p.event_id = e.id)),
  counted AS (
    INSERT INTO event_tail AS tail (tenant_id, last_position)
    SELECT tenant_id, count(*) FROM fresh GROUP BY tenant_id ORDER BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET last_position = tail.last_position + excluded.last_position
    RETURNING tenant_id, last_position)
  INSERT INTO event_position (tenant_id, position, event_id)
  SELECT tenant_id, last_position + 1 - row_number() OVER (PARTITION BY tenant_id ORDER BY id DESC), id
    FROM fresh JOIN counted USING (tenant_id);
  RETURN NULL;
END $$;

CREATE TRIGGER give_event_positions AFTER DELETE ON outbox_pending
  REFERENCING OLD TABLE AS published FOR EACH STATEMENT EXECUTE FUNCTION give_event_positions();
ALTER TABLE event_tail FORCE ROW LEVEL SECURITY;
ALTER TABLE event_position FORCE ROW LEVEL SECURITY;
GRANT INSERT ON outbox_pending TO licet_system;
