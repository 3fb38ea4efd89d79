-- The event log that a consumer's offsets belong to: in another log the same numbers stand for other events.
CREATE TABLE consumer_log (
  consumer text PRIMARY KEY,
  log_id   text NOT NULL
);
ALTER TABLE consumer_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE consumer_log FORCE ROW LEVEL SECURITY;
CREATE POLICY system_counts ON consumer_log TO licet_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON consumer_log TO licet_system;
