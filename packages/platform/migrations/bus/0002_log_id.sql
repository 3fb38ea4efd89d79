-- Which log this is. Positions that readers keep elsewhere mean something in this log only, and not in another one that
-- came to its place.
CREATE TABLE log_id (
  -- One row and no other.
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO log_id DEFAULT VALUES;
GRANT SELECT ON log_id TO licet_system;
